// SPDX-License-Identifier: Apache-2.0
#include "sys/remote_memory.hpp"

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>

#include "sys/call.hpp"

namespace icecore::sys {

void try_make_huge_pages(const Fd& process, const RemoteRange& range) noexcept {
  constexpr int kCollapse = 25;  // MADV_COLLAPSE; Debian 12's libc does not know it
  const ::iovec vector{reinterpret_cast<void*>(range.address), range.size_bytes};
  ::syscall(SYS_process_madvise, process.get(), &vector, 1, kCollapse, 0);
}

RemoteMemory::RemoteMemory(pid_t pid)
    : pid_(pid),
      memory_{checked(
          [&] { return ::open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDWR | O_CLOEXEC); },
          "open /proc/{}/mem", pid)} {}

void RemoteMemory::read(std::span<const RemoteRange> ranges, std::span<std::byte> out) const {
  constexpr std::size_t kAtOnce = 256;
  std::array<::iovec, kAtOnce> remote;
  while (!ranges.empty()) {
    const std::size_t count = std::min(kAtOnce, ranges.size());
    std::size_t wanted = 0;
    for (std::size_t i = 0; i < count; ++i) {
      remote[i] = {reinterpret_cast<void*>(ranges[i].address), ranges[i].size_bytes};
      wanted += ranges[i].size_bytes;
    }
    const ::iovec local{out.data(), wanted};
    const ssize_t got = ::process_vm_readv(pid_, &local, 1, remote.data(), count, 0);
    if (got < 0 && errno != EFAULT)
      throw_errno(errno, fmt::format("read memory of process {}", pid_));
    auto left = static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    std::size_t whole = 0;
    while (whole < count && left >= ranges[whole].size_bytes) left -= ranges[whole++].size_bytes;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < whole; ++i) bytes += ranges[i].size_bytes;
    ranges = ranges.subspan(whole);
    out = out.subspan(bytes);
    if (whole == count) continue;

    // This one is not readable for the process itself.
    read_any_protection(ranges.front().address, out.first(ranges.front().size_bytes));
    out = out.subspan(ranges.front().size_bytes);
    ranges = ranges.subspan(1);
  }
}

void RemoteMemory::read_any_protection(std::uint64_t address, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = checked(
        [&] { return ::pread(memory_.get(), out.data(), out.size(), static_cast<off_t>(address)); },
        "read memory of process {} at {:#x}", pid_, address);
    if (got == 0)
      throw_errno(EIO, fmt::format("read memory of process {} at {:#x}", pid_, address));
    out = out.subspan(static_cast<std::size_t>(got));
    address += static_cast<std::uint64_t>(got);
  }
}

bool RemoteMemory::try_read(std::uint64_t address, std::span<std::byte> out) const noexcept {
  const ::iovec local{out.data(), out.size()};
  const ::iovec remote{reinterpret_cast<void*>(address), out.size()};
  return ::process_vm_readv(pid_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(out.size());
}

void RemoteMemory::write(std::uint64_t address, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t put = checked(
        [&] {
          return ::pwrite(memory_.get(), bytes.data(), bytes.size(), static_cast<off_t>(address));
        },
        "write memory of process {} at {:#x}", pid_, address);
    if (put == 0)
      throw_errno(EIO, fmt::format("write memory of process {} at {:#x}", pid_, address));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    address += static_cast<std::uint64_t>(put);
  }
}

}  // namespace icecore::sys
