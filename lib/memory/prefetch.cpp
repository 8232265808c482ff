// SPDX-License-Identifier: Apache-2.0
#include "memory/prefetch.hpp"

#include <algorithm>
#include <vector>

namespace icecore {
namespace {

constexpr std::size_t kPagesAtOnce = 64;

}  // namespace

std::uint64_t prefetch(const WorkingSet& set, MissingPages& missing,
                       const sys::Userfaultfd& faults) {
  // Both are in the order of the addresses, so one walk over both is enough.
  const std::vector<StoredRange> ranges = missing.ranges();
  const auto pages = set.pages();
  std::uint64_t filled = 0;
  std::size_t i = 0;
  for (const StoredRange& range : ranges) {
    const std::uint64_t end_page = range.first_page + range.pages;
    while (i < pages.size() && pages[i] < range.first_page) ++i;
    while (i < pages.size() && pages[i] < end_page) {
      std::size_t count = 1;
      while (count < kPagesAtOnce && i + count < pages.size() && pages[i + count] < end_page &&
             pages[i + count] == pages[i] + count)
        ++count;
      const std::uint64_t address = range.address + (pages[i] - range.first_page) * kPageSize;
      faults.copy(address, set.read(i, count));
      missing.erase(address, address + count * kPageSize);
      filled += count;
      i += count;
    }
  }
  return filled;
}

}  // namespace icecore
