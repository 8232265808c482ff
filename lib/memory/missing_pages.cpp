// SPDX-License-Identifier: Apache-2.0
#include "memory/missing_pages.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace icecore {

StoredRange MissingPages::range_of(const std::pair<const std::uint64_t, Tail>& entry) {
  return {entry.first, entry.second.first_page, (entry.second.end - entry.first) / kPageSize};
}

void MissingPages::add(const StoredRange& range) {
  if (range.pages == 0) return;
  // Nearly always behind all others: then there is nothing to search for.
  if (!ranges_.empty() && ranges_.rbegin()->second.end > range.address)
    erase(range.address, range.end());
  ranges_.emplace_hint(ranges_.end(), range.address, Tail{range.end(), range.first_page});
  pages_ += range.pages;
}

/// Makes `address` the beginning of a range, if it lies inside one.
void MissingPages::split(std::uint64_t address) {
  auto at = ranges_.lower_bound(address);
  if (at == ranges_.begin()) return;
  --at;
  if (at->second.end <= address) return;
  const Tail tail{at->second.end, at->second.first_page + (address - at->first) / kPageSize};
  at->second.end = address;
  ranges_[address] = tail;
}

std::optional<StoredRange> MissingPages::find(std::uint64_t address) const {
  auto at = ranges_.upper_bound(address);
  if (at == ranges_.begin()) return std::nullopt;
  --at;
  if (at->second.end <= address) return std::nullopt;
  const std::uint64_t skipped = (address - at->first) / kPageSize;
  return StoredRange{address, at->second.first_page + skipped,
                     (at->second.end - address) / kPageSize};
}

std::optional<StoredRange> MissingPages::next(std::uint64_t address) const {
  if (const auto here = find(address)) return here;
  const auto at = ranges_.lower_bound(address);
  if (at == ranges_.end()) return std::nullopt;
  return range_of(*at);
}

void MissingPages::erase(std::uint64_t start, std::uint64_t end) {
  if (start >= end || ranges_.empty()) return;
  split(start);
  split(end);
  auto at = ranges_.lower_bound(start);
  while (at != ranges_.end() && at->first < end) {
    pages_ -= (at->second.end - at->first) / kPageSize;
    at = ranges_.erase(at);
  }
}

void MissingPages::erase(std::span<const sys::PageRange> ranges) {
  MissingPages left;
  auto gone = ranges.begin();
  for (const auto& entry : ranges_) {
    StoredRange range = range_of(entry);
    const auto drop_before = [&](std::uint64_t address) {
      const std::uint64_t pages = (address - range.address) / kPageSize;
      range = {address, range.first_page + pages, range.pages - pages};
    };
    while (gone != ranges.end() && gone->end <= range.address) ++gone;
    for (; gone != ranges.end() && gone->start < range.end(); ++gone) {
      if (gone->start > range.address)
        left.add({range.address, range.first_page, (gone->start - range.address) / kPageSize});
      drop_before(std::min(gone->end, range.end()));
      if (gone->end > range.end()) break;  // it goes on in the next
    }
    left.add(range);
  }
  *this = std::move(left);
}

void MissingPages::move(std::uint64_t start, std::uint64_t end, std::uint64_t to) {
  split(start);
  split(end);
  std::vector<StoredRange> moved;
  for (auto at = ranges_.lower_bound(start); at != ranges_.end() && at->first < end; ++at) {
    moved.push_back(range_of(*at));
    moved.back().address = to + (at->first - start);
  }
  erase(start, end);
  erase(to, to + (end - start));
  for (const StoredRange& range : moved) add(range);
}

std::vector<StoredRange> MissingPages::ranges() const {
  std::vector<StoredRange> all;
  for (const auto& entry : ranges_) all.push_back(range_of(entry));
  return all;
}

}  // namespace icecore
