// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "image/page_run.hpp"
#include "sys/pagemap_scan.hpp"

namespace icecore {

/// Stored pages that belong to neighbouring addresses.
struct StoredRange {
  std::uint64_t address;
  std::uint64_t first_page;  ///< number of the stored page
  std::uint64_t pages;

  std::uint64_t end() const noexcept { return address + pages * kPageSize; }
  friend bool operator==(const StoredRange&, const StoredRange&) = default;
};

/// Which addresses of one address space still wait for which stored pages.  Everything else that
/// is missing there is zeros.
class MissingPages {
 public:
  void add(const StoredRange& range);

  /// The stored pages from `address` on, as far as they go on side by side; `address` is that of a
  /// page.
  std::optional<StoredRange> find(std::uint64_t address) const;

  /// The first range at or behind `address`.
  std::optional<StoredRange> next(std::uint64_t address) const;

  /// [start, end) waits for nothing any more: it is filled, gone, or zeros.
  void erase(std::uint64_t start, std::uint64_t end);

  /// The same for many ranges, ascending and disjoint: one walk over all, instead of a search each.
  void erase(std::span<const sys::PageRange> ranges);

  /// What waited in [start, end) now waits at `to`.
  void move(std::uint64_t start, std::uint64_t end, std::uint64_t to);

  bool empty() const noexcept { return ranges_.empty(); }
  std::uint64_t pages() const noexcept { return pages_; }
  std::vector<StoredRange> ranges() const;

 private:
  struct Tail {
    std::uint64_t end;
    std::uint64_t first_page;
  };
  static StoredRange range_of(const std::pair<const std::uint64_t, Tail>& entry);
  void split(std::uint64_t address);

  std::map<std::uint64_t, Tail> ranges_;  // by address; disjoint
  std::uint64_t pages_ = 0;
};

}  // namespace icecore
