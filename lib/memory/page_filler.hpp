// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "icecore/progress.hpp"
#include "memory/page_store.hpp"
#include "sys/remote_memory.hpp"
#include "sys/userfaultfd.hpp"

namespace icecore {

/// Stored pages that go to one place in the process.
struct FillRange {
  enum class How {
    missing,  ///< by userfaultfd: fastest, for fresh memory that is registered with it
    write,    ///< through /proc/PID/mem: makes huge pages where they are wanted, copies file pages
  };
  std::uint64_t first_page;  ///< number of the stored page
  std::uint64_t pages;
  std::uint64_t address;  ///< in the process
  How how;
};

/// Fills memory of a process that does not run, on two threads.  Every page is checked against its
/// digest first.  Returns the number of bytes.  Throws Errc::corrupt_image or Errc::cancelled.
std::uint64_t fill_pages(const PageStore& store, const std::vector<FillRange>& ranges,
                         const sys::RemoteMemory& memory, const sys::Userfaultfd* missing,
                         const ProgressCallback& progress, const std::stop_token& stop);

}  // namespace icecore
