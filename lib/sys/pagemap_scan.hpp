// SPDX-License-Identifier: Apache-2.0
#pragma once

// PAGEMAP_SCAN (Linux 6.7): which pages of a range hold something.
//
// Kernel facts relied on here:
//  * It skips holes by whole page tables: 11 µs for an empty TiB, 1.6 to 3 ms for a GiB of present
//    pages.
//  * PAGE_IS_FILE is set for pages of files and of shared memory, clear for a private copy of a
//    file page.  PAGE_IS_PFNZERO marks the shared zero page, which a read of untouched memory maps.
//  * A category that the kernel does not know (guards before 6.15) is EINVAL.
//  * At most max_pages pages and vec_len regions at a call; walk_end says where it stopped.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "sys/fd.hpp"

namespace icecore::sys {

struct PageRange {
  std::uint64_t start;
  std::uint64_t end;
};

/// The pages of one process.
class PagemapScan {
 public:
  explicit PagemapScan(pid_t pid);

  /// Nothing when it has ended or does not let itself be looked at.
  static std::optional<PagemapScan> try_open(pid_t pid);

  /// Ranges of private pages in [start, end): present or swapped, neither the zero page nor an
  /// unmodified page of a file.  Ascending; appended to `ranges`.  Guard pages
  /// (MADV_GUARD_INSTALL, Linux 6.13; shown since 6.15) are appended to `guards` instead, whatever
  /// they are in.
  void private_pages(std::uint64_t start, std::uint64_t end, std::vector<PageRange>& ranges,
                     std::vector<PageRange>& guards) const;

  /// Guard pages in [start, end) alone.
  void guards(std::uint64_t start, std::uint64_t end, std::vector<PageRange>& ranges) const;

  /// Ranges of unmodified file pages in [start, end) that the process has used, or that lay beside
  /// such a page: the kernel maps up to 16 at a fault.
  void used_file_pages(std::uint64_t start, std::uint64_t end,
                       std::vector<PageRange>& ranges) const;

 private:
  Fd pagemap_;
};

}  // namespace icecore::sys
