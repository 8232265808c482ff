// SPDX-License-Identifier: Apache-2.0
//
// The physical limits: how fast this machine, at this moment, can copy the same bytes out of a
// process into a file, and out of a mapped file into fresh memory.
#pragma once

#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "process.hpp"
#include "statistics.hpp"

namespace bench {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kPieceBytes = 1 << 20;

struct Run {
  std::uint64_t start = 0;
  std::size_t bytes = 0;
};

/// Runs of pages that are present in writable private memory of the process, `bytes` in all if it
/// has so many.
inline std::vector<Run> present_runs(pid_t pid, std::size_t bytes) {
  const std::string process = fmt::format("/proc/{}", pid);
  const Fd pagemap{must(::open((process + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC), "pagemap")};
  std::ifstream maps{process + "/maps"};
  std::vector<Run> runs;
  for (std::string line; bytes > 0 && std::getline(maps, line);) {
    std::uint64_t start = 0, end = 0;
    char mode[8] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, mode) != 3) continue;
    if (std::string{mode} != "rw-p") continue;
    std::vector<std::uint64_t> entries((end - start) / kPageBytes);
    must(::pread(pagemap.get(), entries.data(), entries.size() * 8,
                 static_cast<off_t>(start / kPageBytes * 8)),
         "pagemap");
    for (std::size_t page = 0; page < entries.size() && bytes > 0; ++page) {
      if (entries[page] >> 63 == 0) continue;
      const std::uint64_t address = start + page * kPageBytes;
      const bool follows = !runs.empty() && runs.back().start + runs.back().bytes == address;
      if (follows && runs.back().bytes < kPieceBytes)
        runs.back().bytes += kPageBytes;
      else
        runs.push_back({address, kPageBytes});
      bytes -= std::min(bytes, kPageBytes);
    }
  }
  return runs;
}

/// process_vm_readv and pwrite of every run, in pieces of a mebibyte at most.  Seconds.
inline double copy_out(pid_t pid, const std::vector<Run>& runs, const std::filesystem::path& path,
                       bool fsync) {
  const Fd file{must(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), path)};
  std::vector<char> piece(kPieceBytes);
  return timed([&] {
    off_t offset = 0;
    for (const Run& run : runs) {
      const ::iovec local = {piece.data(), run.bytes};
      const ::iovec remote = {reinterpret_cast<void*>(run.start), run.bytes};
      must(::process_vm_readv(pid, &local, 1, &remote, 1, 0), "process_vm_readv");
      must(::pwrite(file.get(), piece.data(), run.bytes, offset), "pwrite");
      offset += static_cast<off_t>(run.bytes);
    }
    if (fsync) must(::fsync(file.get()), "fsync");
  });
}

/// Memory mapped for as long as this lives.
class Mapped {
 public:
  Mapped(std::size_t bytes, int protection, int flags, int file = -1)
      : start_(static_cast<char*>(::mmap(nullptr, bytes, protection, flags, file, 0))),
        bytes_(bytes) {
    if (start_ == MAP_FAILED) must(-1, "mmap");
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() { ::munmap(start_, bytes_); }

  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(start_); }

 private:
  char* start_;
  std::size_t bytes_;
};

inline void copy_range(int uffd, std::uint64_t to, std::uint64_t from, std::size_t bytes) {
  for (std::size_t done = 0; done < bytes;) {
    ::uffdio_copy copy{};
    copy.dst = to + done;
    copy.src = from + done;
    copy.len = std::min(bytes - done, kPieceBytes);
    if (::ioctl(uffd, UFFDIO_COPY, &copy) == -1 && errno != EAGAIN) must(-1, "UFFDIO_COPY");
    if (copy.copy > 0) done += static_cast<std::size_t>(copy.copy);
  }
}

/// Reads the file once, past the page cache.  Seconds.
inline double read_directly(const std::filesystem::path& path) {
  constexpr std::size_t kAtOnce = std::size_t{1} << 20;
  const Fd file{must(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC), path)};
  const Mapped buffer{kAtOnce, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS};
  return timed([&] {
    while (must(::read(file.get(), reinterpret_cast<void*>(buffer.address()), kAtOnce), path) > 0)
      continue;
  });
}

/// Nanoseconds that a single fault took: median, 99 of 100, longest.
struct FaultTimes {
  double p50 = 0, p99 = 0, max = 0;
};

/// Fresh memory that is missing, and another process that answers each fault in it with one page,
/// by poll, read and UFFDIO_COPY.
class BareFaults {
 public:
  explicit BareFaults(std::size_t bytes)
      : uffd_(static_cast<int>(
            must(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), "userfaultfd"))),
        memory_(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS) {
    ::uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
    must(::ioctl(uffd_.get(), UFFDIO_API, &api), "UFFDIO_API");
    ::uffdio_register all = {{memory_.address(), bytes}, UFFDIO_REGISTER_MODE_MISSING, 0};
    must(::ioctl(uffd_.get(), UFFDIO_REGISTER, &all), "UFFDIO_REGISTER");
    handler_ = must(::fork(), "fork");
    if (handler_ == 0) answer();
  }
  BareFaults(const BareFaults&) = delete;
  ~BareFaults() {
    ::kill(handler_, SIGKILL);
    ::waitpid(handler_, nullptr, 0);
  }

  void touch(std::size_t page) const {
    (void)*reinterpret_cast<const volatile char*>(memory_.address() + page * kPageBytes);
  }

 private:
  [[noreturn]] void answer() const {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Mapped page{kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS};
    *reinterpret_cast<char*>(page.address()) = 1;
    for (;;) {
      ::pollfd wait{uffd_.get(), POLLIN, 0};
      ::poll(&wait, 1, -1);
      ::uffd_msg message{};
      if (::read(uffd_.get(), &message, sizeof message) != sizeof message) continue;
      ::uffdio_copy copy{};
      copy.dst = message.arg.pagefault.address & ~(kPageBytes - 1);
      copy.src = page.address();
      copy.len = kPageBytes;
      ::ioctl(uffd_.get(), UFFDIO_COPY, &copy);
    }
  }

  Fd uffd_;
  Mapped memory_;
  pid_t handler_ = 0;
};

inline constexpr std::size_t kFaultsApart = 17;  // pages: no neighbours

/// The bare round trip.
inline FaultTimes bare_faults(std::size_t count, std::chrono::microseconds pause) {
  const BareFaults faults{count * kFaultsApart * kPageBytes};
  std::vector<double> took;
  for (std::size_t i = 0; i < count; ++i) {
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    const auto begin = Clock::now();
    faults.touch(i * kFaultsApart);
    took.push_back(seconds_since(begin) * 1e9);
  }
  std::ranges::sort(took);
  return {took[count / 2], took[count * 99 / 100], took.back()};
}

/// Many threads that touch pages at once: nanoseconds a page.
inline double bare_storm(std::size_t threads, std::size_t each) {
  const BareFaults faults{threads * each * kFaultsApart * kPageBytes};
  return timed([&] {
           std::vector<std::jthread> all;
           for (std::size_t thread = 0; thread < threads; ++thread)
             all.emplace_back([&, thread] {
               for (std::size_t i = 0; i < each; ++i)
                 faults.touch((i * threads + thread) * kFaultsApart);
             });
         }) *
         1e9 / static_cast<double>(threads * each);
}

/// Fills as much fresh memory from the file, which lies in the page cache, by UFFDIO_COPY. Seconds.
inline double fill_fresh_memory(const std::filesystem::path& path, std::size_t bytes,
                                std::size_t threads) {
  bytes = std::min<std::size_t>(bytes, std::filesystem::file_size(path)) / kPageBytes * kPageBytes;
  const Fd file{must(::open(path.c_str(), O_RDONLY | O_CLOEXEC), path)};
  const Fd uffd{static_cast<int>(must(::syscall(SYS_userfaultfd, O_CLOEXEC), "userfaultfd"))};
  ::uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
  must(::ioctl(uffd.get(), UFFDIO_API, &api), "UFFDIO_API");

  return timed([&] {
    const Mapped image{bytes, PROT_READ, MAP_SHARED, file.get()};
    const Mapped memory{bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS};
    ::uffdio_register all = {{memory.address(), bytes}, UFFDIO_REGISTER_MODE_MISSING, 0};
    must(::ioctl(uffd.get(), UFFDIO_REGISTER, &all), "UFFDIO_REGISTER");
    std::vector<std::jthread> fillers;
    for (std::size_t index = 0; index < threads; ++index) {
      const std::size_t first = bytes / kPageBytes * index / threads * kPageBytes;
      const std::size_t last = bytes / kPageBytes * (index + 1) / threads * kPageBytes;
      fillers.emplace_back([&, first, last] {
        copy_range(uffd.get(), memory.address() + first, image.address() + first, last - first);
      });
    }
  });
}

}  // namespace bench
