// SPDX-License-Identifier: Apache-2.0
#pragma once

// userfaultfd(2): fills missing pages of another process, before it runs or as it touches them.
//
// Kernel facts relied on here:
//  * Whoever holds the descriptor may register ranges of the process that made it, and fill them,
//    from outside: only userfaultfd(2) itself must run inside.
//  * UFFDIO_COPY into missing anonymous memory is the fastest way to fill it: 0.9 µs a page in
//    pieces of 64 to 256 KiB, against 2.5 µs for process_vm_writev.  It does not look at the
//    protection of the mapping, and never makes a huge page.
//  * A fault on a missing page of a registered range waits for a fill of that page, also one of the
//    kernel on behalf of the process, as in read(2); not when UFFD_USER_MODE_ONLY was given.
//  * A fill must lie within one mapping, else it is ENOENT.  So it is also in the moment in which
//    another CPU moves the mapping and has not yet said so.
//  * With events, fork, mremap, madvise and munmap wait until their message has been read, and
//  until
//    then every fill fails with EAGAIN.  The memory changes only after a remove has been read, but
//    before an unmap or a remap is reported.
//  * Events need CAP_SYS_PTRACE of whoever opens the interface (UFFDIO_API).
//  * When the last descriptor is closed, ranges are no longer registered: missing pages are zeros.
//  * A message is copied out before the reader can die of a signal; a descriptor that it brings
//    (fork) is one of the reader's.
//  * A mapping that is split or merged keeps its registration; a fresh one in its place has none.
//  * The end of a process is not reported; fills fail with ESRCH from then on, a wake does not.
//  * UFFDIO_POISON (Linux 6.6): touching the page is SIGBUS.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "sys/fd.hpp"

namespace icecore::sys {

/// A message as the kernel writes it.  All zero: none.
using PageMessage = std::array<std::uint64_t, 4>;

struct PageEvent {
  enum class Kind {
    none,
    fault,   ///< `start` is missing, and somebody waits for it
    fork,    ///< `fd` is the userfaultfd of the child, for the same ranges
    remap,   ///< [start, end) has moved to `to`
    remove,  ///< [start, end) is zeros from now on (madvise)
    unmap,   ///< [start, end) is gone
  };
  Kind kind = Kind::none;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t to = 0;
  int fd = -1;
};
PageEvent decode(const PageMessage& message);

/// How far a fill came, and why not further.
struct FillResult {
  enum class Stop {
    none,          ///< all done
    exists,        ///< the next page is not missing
    changing,      ///< an event must be read first, or memory is short
    unmapped,      ///< not all of it lies in one registered mapping
    unreadable,    ///< the source cannot be read
    process_gone,  ///< the process has ended, or runs another program
  };
  Stop stop = Stop::none;
  std::size_t done_bytes = 0;
};

class Userfaultfd {
 public:
  enum class Use {
    fill,    ///< of a process that does not run
    events,  ///< of one that runs: all events
  };

  Userfaultfd() = default;

  /// `fd`: a copy of what userfaultfd(2) gave to the process; still to be opened with UFFDIO_API.
  Userfaultfd(Fd fd, Use use);

  /// Takes over one that is open, as from a fork event.
  static Userfaultfd opened(Fd fd);

  int fd() const noexcept { return fd_.get(); }

  /// By whole mappings, where no mapping may be split for good.
  void register_missing(std::uint64_t start, std::uint64_t end) const;
  void unregister(std::uint64_t start, std::uint64_t end) const;

  /// Fills missing pages at `address` with `pages`.  Throws when any of them is not missing.
  void copy(std::uint64_t address, std::span<const std::byte> pages) const;

  /// Fills missing pages of a process that runs, and wakes who waits for them.
  FillResult try_copy(std::uint64_t address, std::span<const std::byte> pages) const noexcept;
  FillResult try_zero(std::uint64_t address, std::size_t size_bytes) const noexcept;
  FillResult try_poison(std::uint64_t address, std::size_t size_bytes) const noexcept;

  /// Faults that were read but not answered are raised again.
  void wake(std::uint64_t start, std::uint64_t end) const noexcept;

  /// False when the address space is gone: its last process has ended, or runs another program.
  bool alive() const noexcept { return alive(fd()); }

  /// The same of a descriptor that somebody else owns; false also when it is no userfaultfd.
  static bool alive(int descriptor) noexcept;

  /// Reads messages that are there; returns their number.  The descriptor must not block.
  std::size_t read(std::span<PageMessage> messages) const;

 private:
  explicit Userfaultfd(Fd fd) : fd_(std::move(fd)) {}

  Fd fd_;
};

}  // namespace icecore::sys
