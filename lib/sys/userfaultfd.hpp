// SPDX-License-Identifier: Apache-2.0
#pragma once

// userfaultfd(2): fills missing pages of another process.
//
// Kernel facts relied on here:
//  * Whoever holds the descriptor may register ranges of the process that made it, and fill them,
//    from outside: only userfaultfd(2) itself must run inside.
//  * UFFDIO_COPY into missing anonymous memory is the fastest way to fill it: 0.9 µs a page in
//  pieces
//    of 64 to 256 KiB, against 2.5 µs for process_vm_writev.  It does not look at the protection of
//    the mapping, and never makes a huge page.
//  * Ranges are registered by whole mappings here, so that no mapping is split.
//  * A registration makes faults on missing pages wait: only for processes that do not run yet.

#include <cstddef>
#include <cstdint>
#include <span>

#include "sys/fd.hpp"

namespace icecore::sys {

class Userfaultfd {
 public:
  /// `fd`: a copy of what userfaultfd(2) gave to the process; still to be opened with UFFDIO_API.
  explicit Userfaultfd(Fd fd);

  void register_missing(std::uint64_t start, std::uint64_t end) const;
  void unregister(std::uint64_t start, std::uint64_t end) const;

  /// Fills missing pages at `address` with `pages`.  Throws when any of them is not missing.
  void copy(std::uint64_t address, std::span<const std::byte> pages) const;

 private:
  Fd fd_;
};

}  // namespace icecore::sys
