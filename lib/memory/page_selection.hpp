// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "image/page_run.hpp"
#include "memory/missing_pages.hpp"
#include "sys/pagemap_scan.hpp"

namespace icecore {

/// A range of a process's memory and which of its pages an image must store.
struct PageSource {
  enum class Which {
    private_pages,  ///< those that only the process has: no clean file pages, none never touched
    shared_data,    ///< those that the shared memory behind it holds, whoever wrote them
    all,
  };
  std::uint64_t start;
  std::uint64_t end;
  Which which;
  std::uint64_t mapping_start;  ///< of the mapping it lies in
  std::uint64_t mapping_end;
  std::uint64_t object_offset;  ///< shared_data: what lies at mapping_start
};

struct PageSelection {
  std::vector<PageRun> runs;      ///< ascending
  std::vector<StoredRange> lent;  ///< ascending, between the runs: to be read from another image
  std::vector<sys::PageRange> guards;  ///< where a touch is SIGSEGV (MADV_GUARD_INSTALL)
};

/// The pages to store of a process that stands still.  Sources ascend and do not overlap.
/// `missing`: what has still to be loaded into private pages of the process, unless it is there
/// or under a guard.
PageSelection select_pages(pid_t pid, const std::vector<PageSource>& sources, MissingPages missing);

}  // namespace icecore
