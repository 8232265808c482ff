// SPDX-License-Identifier: Apache-2.0
#include "memory/missing_pages.hpp"

#include <catch2/catch.hpp>

#include <random>

namespace icecore::missing_pages_test {

constexpr std::uint64_t at(std::uint64_t page) { return 0x10000000 + page * kPageSize; }

TEST_CASE("many ranges are erased at once as they are one by one") {
  std::mt19937 random{7};  // NOLINT(cert-msc*): the same every time
  const auto some = [&](std::uint64_t most) { return random() % most; };
  for (int round = 0; round < 200; ++round) {
    MissingPages one_by_one;
    std::uint64_t page = 0, stored = 0;
    for (int i = 0; i < 20; ++i) {
      const std::uint64_t pages = 1 + some(8);
      page += some(4);  // side by side, or with a gap
      one_by_one.add({at(page), stored, pages});
      page += pages;
      stored += pages + some(2);
    }
    MissingPages at_once = one_by_one;
    std::vector<sys::PageRange> gone;
    for (std::uint64_t start = some(6); start < page + 4; start += some(9)) {
      const std::uint64_t end = start + some(7);
      gone.push_back({at(start), at(end)});
      start = end;
      start = end;
    }
    at_once.erase(gone);
    for (const sys::PageRange& range : gone) one_by_one.erase(range.start, range.end);
    CHECK(at_once.pages() == one_by_one.pages());
    for (std::uint64_t i = 0; i < page; ++i) {
      const auto left = at_once.find(at(i)), expected = one_by_one.find(at(i));
      REQUIRE(left.has_value() == expected.has_value());
      if (left) REQUIRE(left->first_page == expected->first_page);
    }
  }
}

}  // namespace icecore::missing_pages_test
