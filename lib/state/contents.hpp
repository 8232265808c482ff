// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which stored pages go where, how and when: before the process runs, or when they are touched.

#include <span>
#include <vector>

#include "image/state_generated.h"
#include "image/working_set.hpp"
#include "memory/missing_pages.hpp"
#include "memory/page_filler.hpp"
#include "memory/page_store.hpp"
#include "memory/read_ahead.hpp"
#include "state/address_space.hpp"

namespace icecore {

/// The stored pages that can be loaded when they are touched, by address.
std::vector<StoredRange> lazy_ranges(const state::ProcessT& image, std::span<const PageRun> runs);

/// What will be read of the image, which comes first and has no path, and of mapped files: the
/// pages that the process has changed, which the kernel reads before they are overwritten, and
/// `used`.
std::vector<FileToRead> files_to_read(const state::ProcessT& image, const PageStore& store,
                                      bool lazy, std::span<const FilePages> used);

/// Where a userfaultfd has to be registered for the pages that are loaded when they are touched.
std::vector<sys::PageRange> ranges_to_register(const state::ProcessT& image,
                                               std::span<const PageRun> runs);

/// Where in memory the pages `used` of mapped files belong.  `used` is that of a WorkingSet.
std::vector<sys::PageRange> places_of(const state::AddressSpaceT& image,
                                      std::span<const FilePages> used);

struct FillPlan {
  std::vector<FillRange> ranges;
  /// Memory to be registered meanwhile, whole mappings: the fastest way to fill them.
  std::vector<sys::PageRange> registered;
};

/// What is filled in before the process runs: everything, or what cannot be `lazy`.
FillPlan plan_fill(const state::ProcessT& image, const PageStore& store, const Workplace& work,
                   bool lazy);

}  // namespace icecore
