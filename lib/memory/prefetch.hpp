// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "image/working_set.hpp"
#include "memory/missing_pages.hpp"
#include "sys/userfaultfd.hpp"

namespace icecore {

/// Fills the pages of a working set into a process that does not run yet, in few large pieces, and
/// takes them out of `missing`.  Returns the number of pages.
/// Throws Errc::corrupt_image; what has been filled until then is right and stays.
std::uint64_t prefetch(const WorkingSet& set, MissingPages& missing,
                       const sys::Userfaultfd& faults);

}  // namespace icecore
