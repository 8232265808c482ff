// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory of another process: process_vm_readv(2), process_vm_writev(2), /proc/PID/mem.
//
// Kernel facts relied on here:
//  * process_vm_readv goes by the mapping's protection: PROT_NONE is EFAULT.  /proc/PID/mem does
//    not (for a tracer), also when it writes into a read-only private mapping: that copies the
//    page.
//  * process_vm_readv in pieces of 256 KiB and more reads 6 to 7 GB/s.  A partial transfer ends at
//  a
//    whole remote element of the vector.
//  * Both give a hole its memory; so only pages known to be there are read.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "sys/fd.hpp"

namespace icecore::sys {

/// A place in another process.
struct RemoteRange {
  std::uint64_t address;
  std::uint64_t size_bytes;
};

/// Makes huge pages of the whole ones in [address, address + size_bytes) that are made of small
/// ones, as far as it can: process_madvise(2) with MADV_COLLAPSE (Linux 6.1; CAP_SYS_NICE).
void try_make_huge_pages(const Fd& process, const RemoteRange& range) noexcept;

class RemoteMemory {
 public:
  /// The caller must trace `pid`, or be allowed to, for as long as this is used.
  explicit RemoteMemory(pid_t pid);

  /// Fills `out` from `ranges`, back to back.  Throws when anything cannot be read.
  void read(std::span<const RemoteRange> ranges, std::span<std::byte> out) const;

  void read(std::uint64_t address, std::span<std::byte> out) const {
    const RemoteRange range{address, out.size()};
    read({&range, 1}, out);
  }

  /// False when the range is not readable, for pointers that only the process vouches for.
  bool try_read(std::uint64_t address, std::span<std::byte> out) const noexcept;

  template <class Value>
  Value read_value(std::uint64_t address) const {
    Value value;
    read(address, std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }

  /// Writes whatever the protection of the mapping is.
  void write(std::uint64_t address, std::span<const std::byte> bytes) const;

  /// The open /proc/PID/mem.
  const Fd& file() const noexcept { return memory_; }

 private:
  void read_any_protection(std::uint64_t address, std::span<std::byte> out) const;

  pid_t pid_;
  Fd memory_;
};

}  // namespace icecore::sys
