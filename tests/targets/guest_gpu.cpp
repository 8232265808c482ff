// SPDX-License-Identifier: Apache-2.0
//
// State: buffers in a GPU that libicecore_guest takes care of: kept, dropped, of a file, and one
// that the program has mapped by itself; in use by a thread all the time.  Arguments: libcuda.so.1,
// a file of 5 MiB; "alone" (without that thread), "MIB N" (how large the kept one is).
#include <fcntl.h>
#include <icecore/guest.h>

#include <atomic>
#include <thread>

#include "cuda.hpp"
#include "target.hpp"

using namespace target;

namespace {

constexpr std::size_t kFileOffset = 4096;
constexpr std::size_t kFileBytes = (std::size_t{5} << 20) - kFileOffset;
constexpr std::size_t kDroppedBytes = std::size_t{96} << 20;  ///< more than the rest of it
constexpr std::size_t kMappedBytes = std::size_t{4} << 20;

void must_be(const char* what, int result) {
  require(result == 0, std::string{what} + " gives " + std::to_string(result));
}

/// Uses them as the library wants it.
struct Inside {
  Inside() { icecore_guest_gpu_enter(); }
  ~Inside() { icecore_guest_gpu_leave(); }
};

std::vector<unsigned> read_device(Address address, std::size_t count) {
  std::vector<unsigned> found(count);
  must_cu("cuMemcpyDtoH_v2", static_cast<void*>(found.data()), address, count * 4);
  return found;
}

struct Buffers {
  Buffer kept, dropped, mapped;
  Address of_file = 0;
  unsigned long long handle = 0;
  std::vector<unsigned> wanted;  ///< of the file
  std::uint64_t losses = 0;

  static Address allocate(icecore_guest_gpu_contents contents, std::size_t size,
                          const char* file = nullptr) {
    icecore_guest_gpu_options options{};
    options.struct_size = sizeof options;
    options.contents = contents;
    options.file = file;
    options.file_offset = file != nullptr ? kFileOffset : 0;
    Address address = 0;
    must_be("icecore_guest_gpu_allocate", icecore_guest_gpu_allocate(&options, size, &address));
    return address;
  }

  void begin(const char* file, std::size_t kept_bytes) {
    kept.count = kept_bytes / 4;
    kept.address = allocate(ICECORE_GUEST_GPU_KEEP, kept.count * 4);
    require(read_device(kept.address, 2) == std::vector<unsigned>{0, 0}, "new memory is not zero");
    kept.fill();
    dropped.count = 700'001;
    dropped.address = allocate(ICECORE_GUEST_GPU_DROP, kDroppedBytes);
    dropped.fill();
    of_file = allocate(ICECORE_GUEST_GPU_FILE, kFileBytes, file);
    const int descriptor = must(::open(file, O_RDONLY | O_CLOEXEC), file);
    wanted.resize(kFileBytes / 4);
    must(::pread(descriptor, wanted.data(), kFileBytes, kFileOffset), file);
    ::close(descriptor);
    begin_mapped();
  }

  void begin_mapped() {
    const MappedMemory memory = map_memory(kMappedBytes);
    handle = memory.handle;
    mapped.count = kMappedBytes / 4;
    mapped.address = memory.address;
    mapped.fill();
    icecore_guest_gpu_options options{};
    options.struct_size = sizeof options;
    must_be("icecore_guest_gpu_register",
            icecore_guest_gpu_register(&options, mapped.address, kMappedBytes, handle));
  }

  void check() {
    const Inside inside;
    for (const Address address : {kept.address, dropped.address, of_file, mapped.address})
      must_be("icecore_guest_gpu_status", icecore_guest_gpu_status(address));
    kept.expect();
    mapped.expect();
    require(read_device(of_file, wanted.size()) == wanted, "the file's bytes are others");
    const std::uint64_t now = icecore_guest_gpu_losses(dropped.address);
    if (now == losses) return dropped.expect();
    require(read_device(dropped.address, dropped.count) == std::vector<unsigned>(dropped.count),
            "what was dropped is not zero");
    losses = now;
    dropped.fill();
  }
};

Buffers buffers;
std::atomic<std::uint64_t> rounds;
std::atomic<bool> failed;

void keep_busy() {
  std::thread{[] {
    use_context();
    for (;; ++rounds) {
      const Inside inside;
      try {
        buffers.mapped.expect();
      } catch (const Wrong&) {
        failed = true;
        return;
      }
    }
  }}.detach();
}

std::string statistics() {
  icecore_guest_gpu_statistics now{};
  now.struct_size = sizeof now;
  icecore_guest_gpu_get_statistics(&now);
  return "{\"saved_bytes\":" + std::to_string(now.saved_bytes) +
         ",\"saved_ns\":" + std::to_string(now.saved_ns) +
         ",\"restored_bytes\":" + std::to_string(now.restored_bytes) +
         ",\"restored_ns\":" + std::to_string(now.restored_ns) +
         ",\"device_ns\":" + std::to_string(now.device_ns) +
         ",\"digest_ns\":" + std::to_string(now.digest_ns) +
         ",\"memory_ns\":" + std::to_string(now.memory_ns) +
         ",\"file_ns\":" + std::to_string(now.file_ns) + "}";
}

}  // namespace

int main(int count, char** arguments) {
  bool alone = false;
  std::size_t kept_bytes = (std::size_t{9} << 20) + 12;
  for (int i = 3; i < count; ++i) {
    const std::string word = arguments[i];
    alone = alone || word == "alone";
    if (word == "MIB") kept_bytes = static_cast<std::size_t>(std::atol(arguments[++i])) << 20;
  }
  {
    unsigned long long address = 0;
    require(icecore_guest_gpu_allocate(nullptr, 1, &address) == 3, "there is a driver already");
  }
  library = ::dlopen(arguments[1], RTLD_NOW);
  if (library == nullptr) throw Wrong{::dlerror()};
  must_cu("cuInit", 0U);
  use_context();
  buffers.begin(arguments[2], kept_bytes);
  if (!alone) keep_busy();
  return serve(
      [] {
        require(!failed, "a copy of another thread went wrong");
        buffers.check();
      },
      {{"losses?",
        [](auto&) { return std::to_string(icecore_guest_gpu_losses(buffers.dropped.address)); }},
       {"status?", [](auto&) { return std::to_string(icecore_guest_gpu_status(buffers.of_file)); }},
       {"kept?",
        [](auto&) { return std::to_string(icecore_guest_gpu_status(buffers.kept.address)); }},
       {"write",
        [](auto&) {
          const Inside inside;
          buffers.wanted[1000] ^= 1;
          must_cu("cuMemcpyHtoD_v2", buffers.of_file,
                  static_cast<const void*>(buffers.wanted.data()), kFileBytes);
          return "ok";
        }},
       {"forget",
        [](auto&) {
          unsigned long long handle = 0;
          must_be("forget", icecore_guest_gpu_forget(buffers.mapped.address, &handle));
          buffers.mapped.expect();
          must_cu("cuMemUnmap", buffers.mapped.address, kMappedBytes);
          must_cu("cuMemRelease", handle);
          must_be("forget", icecore_guest_gpu_forget(buffers.kept.address, nullptr));
          must_be("forget", icecore_guest_gpu_forget(buffers.dropped.address, nullptr));
          must_be("forget", icecore_guest_gpu_forget(buffers.of_file, nullptr));
          require(icecore_guest_gpu_forget(buffers.of_file, nullptr) == 1, "forgotten twice");
          return "ok";
        }},
       {"enter", [](auto&) { return icecore_guest_gpu_enter(), "ok"; }},
       {"leave", [](auto&) { return icecore_guest_gpu_leave(), "ok"; }},
       {"free?",
        [](auto&) {
          std::size_t free = 0, total = 0;
          must_cu("cuMemGetInfo_v2", &free, &total);
          return std::to_string(free);
        }},
       {"snapshot", [](auto&) { return std::to_string(icecore_guest_snapshot(20'000)); }},
       {"statistics?", [](auto&) { return statistics(); }},
       {"rounds", [](auto&) { return std::to_string(rounds.load()); }}});
}
