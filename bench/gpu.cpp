// SPDX-License-Identifier: Apache-2.0
//
// How fast does device memory go into an image and come back, stage by stage, eager and lazy,
// against what this machine can copy?  With the test driver of tests/fake_cuda, whose GPUs are
// ordinary memory, or with a real one (--libcuda libcuda.so.1).
#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
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

struct Samples {
  std::map<std::string, std::vector<double>> seconds;

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

void bring_back(const char* how, const fs::path& image, Samples& samples) {
  const auto begin = Clock::now();
  Program restored{{ICECORE_TOOL, "restore", image, "--no-record", "--json", how}, Errors::kept};
  restored.ask("ping");
  const std::string name = fmt::format("restore {}", how);
  samples.add(name + ": until it answers", seconds_since(begin));
  const std::string said = restored.error_text();
  samples.add_us(name + ": image into memory", said, "fill_us");
  samples.add_us(name + ": memory into device memory", said, "gpu_us");
  restored.hang_up();
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
    bring_back("--eager", image, samples);
    bring_back("--lazy", image, samples);
  }
  print(options, samples);
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  return bench::run_bench(argc, argv, bench::kUsage, bench::bench);
}
