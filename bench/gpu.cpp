// SPDX-License-Identifier: Apache-2.0
//
// How fast does device memory go into an image and come back, stage by stage, eager and lazy,
// against what this machine can copy?  And buffers of libicecore_guest: is copying them out and in
// again as fast as the slowest of what has to be done with each byte, since that goes on at the
// same time?  With the test driver of tests/fake_cuda, whose GPUs are ordinary memory, or with a
// real one
// (--libcuda libcuda.so.1).
#define XXH_INLINE_ALL
#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <optional>
#include <thread>
#include <vector>

#include "options.hpp"
#include "process.hpp"
#include "statistics.hpp"
#include "workplace.hpp"

namespace bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::size_t runs = 5;
  std::size_t mib = 512;
  bool json = false;
  std::string libcuda = {};  ///< empty: the test driver
  fs::path folder = fs::temp_directory_path();
};

constexpr const char* kUsage =
    "gpu [--runs N] [--mib N] [--json] [--libcuda PATH] [--folder PATH]\n";

Options parse(const Words& words) {
  Options options;
  parse_options(words, {{"--json", &options.json}},
                {{"--runs", [&](const std::string& value) { options.runs = std::stoul(value); }},
                 {"--mib", [&](const std::string& value) { options.mib = std::stoul(value); }},
                 {"--libcuda", [&](const std::string& value) { options.libcuda = value; }},
                 {"--folder", [&](const std::string& value) { options.folder = value; }}});
  if (options.runs == 0 || options.mib == 0) throw std::invalid_argument{"0"};
  return options;
}

/// The test driver, for all programs that are started from now on.
class FakeGpu {
 public:
  FakeGpu(const Workplace& work, std::size_t mib) {
    const fs::path built = fs::path{ICECORE_TARGET_DIR}.parent_path() / "fake_cuda";
    library = built / "libcuda.so.1";
    for (const char* name : {"nvidia0", "nvidiactl", "nvidia-uvm"})
      std::ofstream{work / name} << std::string(4096, '\0');
    ::setenv("FAKE_CUDA_DIR", (work / "").c_str(), 1);
    ::setenv("ICECORE_GPU_DEVICES", (work / "nvidia").c_str(), 1);
    ::setenv("ICECORE_LIBCUDA", library.c_str(), 1);
    daemon_.emplace(Command{built / "gpud", work / "gpud", fmt::format("1:90:{}", 2 * mib + 1024)});
    daemon_->hear();
  }

  fs::path library;

 private:
  std::optional<Program> daemon_;
};

/// From memory into fresh memory, as the driver does at best.  Seconds.
double copy_once(std::size_t bytes) {
  const std::vector<char> from(bytes, 1);
  return timed([&] {
    std::vector<char> to(from);
    if (to[bytes / 2] != 1) std::abort();
  });
}

/// What the library does with the bytes of buffers, each by itself, on as many threads.
class Stages {
 public:
  Stages(const std::string& library, std::size_t bytes)
      : library_(::dlopen(library.c_str(), RTLD_NOW)), bytes_(bytes) {
    if (library_ == nullptr) throw std::runtime_error{::dlerror()};
    call("cuInit", 0U);
    void* context = nullptr;
    call("cuDevicePrimaryCtxRetain", &context, 0);
    call("cuCtxSetCurrent", context);
    call("cuMemAlloc_v2", &device_, bytes);
    call("cuStreamCreate", &stream_, 1U);
    call("cuMemHostRegister_v2", static_cast<void*>(ring_.data()), ring_.size(), 1U);
  }
  Stages(const Stages&) = delete;
  Stages& operator=(const Stages&) = delete;
  ~Stages() {
    call("cuMemHostUnregister", static_cast<void*>(ring_.data()));
    call("cuMemFree_v2", device_);
  }

  double out_of_device() const {
    return timed([&] {
      for_all([&](char* slot, std::size_t at) {
        call("cuMemcpyDtoHAsync_v2", static_cast<void*>(slot), device_ + at, kPiece, stream_);
      });
      call("cuStreamSynchronize", stream_);
    });
  }
  double into_device() const {
    return timed([&] {
      for_all([&](char* slot, std::size_t at) {
        call("cuMemcpyHtoDAsync_v2", device_ + at, static_cast<const void*>(slot), kPiece, stream_);
      });
      call("cuStreamSynchronize", stream_);
    });
  }
  double digest() const {
    std::atomic<std::uint64_t> sum = 0;
    return timed([&] {
      in_threads([&](char* slot, std::size_t) { sum += XXH3_128bits(slot, kPiece).low64; });
    });
  }
  /// Into memory that is touched for the first time.
  double into_memory() const {
    const Memory memory{bytes_};
    return timed([&] {
      in_threads([&](char* slot, std::size_t at) { std::memcpy(memory.start + at, slot, kPiece); });
    });
  }
  double out_of_memory() const {
    const Memory memory{bytes_};
    in_threads([&](char* slot, std::size_t at) { std::memcpy(memory.start + at, slot, kPiece); });
    return timed([&] {
      in_threads([&](char* slot, std::size_t at) { std::memcpy(slot, memory.start + at, kPiece); });
    });
  }

 private:
  static constexpr std::size_t kPiece = std::size_t{4} << 20;
  static constexpr std::size_t kSlots = 8;

  struct Memory {
    explicit Memory(std::size_t size_in_bytes)
        : start(static_cast<char*>(::mmap(nullptr, size_in_bytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
          size(size_in_bytes) {
      if (start == MAP_FAILED) throw std::bad_alloc{};
      ::madvise(start, size, MADV_HUGEPAGE);  // as the library does
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() { ::munmap(start, size); }
    char* start;
    std::size_t size;
  };

  template <class... Arguments>
  void call(const char* name, Arguments... arguments) const {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(::dlsym(library_, name));
    if (function == nullptr || function(arguments...) != 0) throw std::runtime_error{name};
  }

  template <class Work>
  void for_all(Work work) const {
    for (std::size_t at = 0; at < bytes_; at += kPiece)
      work(ring_.data() + at / kPiece % kSlots * kPiece, at);
  }

  template <class Work>
  void in_threads(Work work) const {
    const std::size_t count = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 2, 4);
    std::atomic<std::size_t> next = 0;
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < count; ++i)
      threads.emplace_back([&, i] {
        for (std::size_t at = 0; (at = next.fetch_add(kPiece)) < bytes_;)
          work(ring_.data() + (2 * i + at / kPiece % 2) * kPiece, at);
      });
  }

  void* library_;
  std::size_t bytes_;
  unsigned long long device_ = 0;
  void* stream_ = nullptr;
  mutable std::vector<char> ring_ = std::vector<char>(kSlots * kPiece, 1);
};

struct Samples {
  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, std::vector<double>> ratios;

  void add(const std::string& stage, double value) { seconds[stage].push_back(value); }
  void add_us(const std::string& stage, const std::string& json, const std::string& field) {
    add(stage, number_in(json, field) / 1e6);
  }
};

void take(const Options& options, const std::string& library, const fs::path& image,
          Samples& samples) {
  Program program{{std::string{ICECORE_TARGET_DIR} + "/gpu_buffers", library, "quiet", "MIB",
                   std::to_string(options.mib)}};
  program.hear();
  const std::string said = run({ICECORE_TOOL, "snapshot", std::to_string(program.pid()), "-o",
                                image, "--no-fsync", "--json"});
  samples.add_us("snapshot: lock", said, "gpu_lock_us");
  samples.add_us("snapshot: device memory into memory", said, "gpu_save_us");
  samples.add_us("snapshot: memory into the image", said, "pages_us");
  samples.add_us("snapshot: and back", said, "gpu_resume_us");
  samples.add_us("snapshot: all of it", said, "total_us");
}

double bring_back(const char* how, const fs::path& image, Samples& samples) {
  const auto begin = Clock::now();
  Program restored{{ICECORE_TOOL, "restore", image, "--no-record", "--json", how}, Errors::kept};
  restored.ask("ping");
  const std::string name = fmt::format("restore {}", how);
  const double all = seconds_since(begin);
  samples.add(name + ": until it answers", all);
  restored.hang_up();
  const std::string said = restored.error_text();  // it may answer before icecore has said that
  samples.add_us(name + ": image into memory", said, "fill_us");
  samples.add_us(name + ": memory into device memory", said, "gpu_us");
  return all;
}

/// A program with one large buffer that is kept; its snapshot, after which it goes on.
void move_buffer(const Options& options, const std::string& library, const Workplace& work,
                 Samples& samples) {
  const fs::path file = work / "weights";
  std::ofstream{file} << std::string(std::size_t{5} << 20, 'w');
  double slowest_out = 0, slowest_in = 0;
  {
    const Stages stages{library, options.mib << 20};
    const auto add = [&](const char* name, double seconds, double& slowest) {
      samples.add(std::string{"buffer, by itself: "} + name, seconds);
      slowest = std::max(slowest, seconds);
    };
    add("device into pinned memory", stages.out_of_device(), slowest_out);
    add("digest", stages.digest(), slowest_out);
    add("pinned into fresh memory", stages.into_memory(), slowest_out);
    add("memory into pinned", stages.out_of_memory(), slowest_in);
    add("digest", stages.digest(), slowest_in);
    add("pinned memory into device", stages.into_device(), slowest_in);
  }
  Program program{{std::string{ICECORE_TARGET_DIR} + "/guest_gpu", library, file, "alone", "MIB",
                   std::to_string(options.mib)}};
  program.hear();
  run({ICECORE_TOOL, "snapshot", std::to_string(program.pid()), "-o", work / "image",
       "--no-fsync"});
  const std::string said = program.ask("statistics?");
  const double out = number_in(said, "saved_ns") / 1e9;
  const double in = number_in(said, "restored_ns") / 1e9;
  samples.add("buffer: out of the device, all stages", out);
  samples.add("buffer: back into it, all stages", in);
  samples.ratios["buffer: out / slowest stage by itself"].push_back(out / slowest_out);
  samples.ratios["buffer: back / slowest stage by itself"].push_back(in / slowest_in);
}

void print(const Options& options, const Samples& samples) {
  const double bytes = static_cast<double>(options.mib) * (1 << 20);
  if (!options.json) fmt::print("{} MiB of device memory, {} runs\n", options.mib, options.runs);
  for (const auto& [stage, values] : samples.seconds) {
    const Summary summary = summarize(values);
    if (options.json)
      fmt::print(R"({{"bench":"gpu/{}","bytes":{:.0f},"median_s":{:.6f},"min_s":{:.6f},)"
                 R"("max_s":{:.6f}}})"
                 "\n",
                 stage, bytes, summary.median, summary.min, summary.max);
    else
      fmt::print("{:<48} {:>10} {:>7.2f} GB/s\n", stage, human_time(summary.median),
                 bytes / summary.median / 1e9);
  }
  for (const auto& [what, values] : samples.ratios) {
    const Summary summary = summarize(values);
    if (options.json)
      fmt::print(R"({{"bench":"gpu/{}","median":{:.3f},"min":{:.3f},"max":{:.3f}}})"
                 "\n",
                 what, summary.median, summary.min, summary.max);
    else
      fmt::print("{:<48} {:>10.2f}  ({:.2f} to {:.2f})\n", what, summary.median, summary.min,
                 summary.max);
  }
}

int bench(const Words& words) {
  const Options options = parse(words);
  const Workplace work{options.folder};
  std::optional<FakeGpu> fake;
  if (options.libcuda.empty()) fake.emplace(work, options.mib);
  const std::string library = fake ? fake->library.string() : options.libcuda;
  Samples samples;
  for (std::size_t i = 0; i < options.runs; ++i) {
    const fs::path image = work / "image";
    samples.add("limit: one copy in memory", copy_once(options.mib << 20));
    take(options, library, image, samples);
    const double eager = bring_back("--eager", image, samples);
    samples.ratios["restore: lazy / eager"].push_back(bring_back("--lazy", image, samples) / eager);
    move_buffer(options, library, work, samples);
  }
  print(options, samples);
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  return bench::run_bench(argc, argv, bench::kUsage, bench::bench);
}
