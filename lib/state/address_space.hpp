// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "image/state_generated.h"
#include "memory/page_selection.hpp"
#include "state/capture.hpp"
#include "sys/pagemap_scan.hpp"
#include "sys/proc_maps.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

struct CapturedAddressSpace {
  std::unique_ptr<state::AddressSpaceT> state;
  std::vector<PageSource> pages;  ///< where the pages to store are looked for
};

/// `vmas`: of the process as it stands still, without what we injected.
CapturedAddressSpace capture_address_space(Capture& capture, const std::vector<sys::Vma>& vmas);

/// Guard regions, which only the scan for pages finds.
void record_guards(const std::vector<sys::PageRange>& guards, state::AddressSpaceT& state);

/// The text of the process's vdso; empty when it has none.
std::vector<std::uint8_t> capture_vdso(const Capture& capture, const std::vector<sys::Vma>& vmas);

// ---- rebuilding -------------------------------------------------------------------------------

/// Where the rebuilt process keeps what is not its own, out of the way of every mapping it will
/// have.
struct Workplace {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t vdso = 0;                     ///< the vdso and its data wait here
  std::uint64_t own_vdso = 0;                 ///< where they stay, when the process knows another
  std::vector<std::uint64_t> shared_objects;  ///< each whole and writable, until filled
  std::vector<int> segments;                  ///< of shmget(2), by shared object; -1: none
};

/// Finds room of `size_bytes` that no mapping of the image and none of `occupied` touches.
std::uint64_t find_room(const state::AddressSpaceT& image, const std::vector<sys::Vma>& occupied,
                        std::uint64_t size_bytes);

/// As high as possible, where the process will hardly look for memory itself: to stay there.
std::uint64_t find_high_room(const state::AddressSpaceT& image, std::uint64_t size_bytes);

/// The kernel's parts of the vdso that is present, in the order of their addresses.
std::vector<sys::Vma> vdso_parts(const std::vector<sys::Vma>& vmas);

/// Where the process knows the text of its vdso.
const state::Mapping& foreign_vdso_mapping(const state::AddressSpaceT& image);

/// Everything the process has at first goes away, but for the workplace; the vdso is moved there.
void clear_address_space(const std::vector<sys::Vma>& present, const Workplace& work,
                         CallStream& calls);

/// Makes every mapping at its place, without contents.  `mapped_file(mapping)` gives the
/// descriptor, in the process, of the file behind one.
void rebuild_mappings(const state::AddressSpaceT& image, const std::vector<sys::Vma>& present,
                      const Workplace& work,
                      const std::function<int(const state::Mapping&)>& mapped_file,
                      CallStream& calls);

/// Guards and locks; once the contents are there.
void rebuild_guards_and_locks(const state::AddressSpaceT& image, CallStream& calls);

/// Seals what was sealed: from then on no mapping of it can be moved or changed.
void rebuild_seals(const state::AddressSpaceT& image, CallStream& calls);

/// Adds what this machine's memory cannot be.
void refuse_lacking_memory(const state::AddressSpaceT& image, Refusals& refusals);

/// True when its pages can be filled in by a userfaultfd, a page at a time.
bool takes_small_pages(const state::Mapping& mapping);

/// Sets brk, stack, argument and environment bounds, auxiliary vector and executable; the last from
/// a descriptor in the process.
void rebuild_bounds(const state::AddressSpaceT& image, int executable, CallStream& calls);

}  // namespace icecore
