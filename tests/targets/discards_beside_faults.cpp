// SPDX-License-Identifier: Apache-2.0
//
// State: 16 areas of a MiB, of which one thread discards what another is about to read.
//   "approach N"  reads pages of area N as a program does that reads on
//   "discard N"   one thread reads the next page of area N while another discards those behind it;
//                 "ok" when they are zeros from then on
#include <sys/mman.h>

#include "memory.hpp"

using namespace target;

int main() {
  constexpr std::size_t kAreas = 16, kArea = 256, kDiscarded = 15;
  // Each begins elsewhere: what is compressed together is 16 pages from somewhere on.
  const auto next_in = [](std::size_t area) { return area % 16 + 31; };
  const Pages pages = map(kAreas * kArea, MAP_PRIVATE | MAP_ANONYMOUS);
  const std::uint64_t seed = random_number();
  for (std::size_t index = 0; index < pages.count; ++index) fill(pages, index, seed);
  std::vector<char> discarded(kAreas);
  Crew crew{2};

  const auto expect_area = [&](std::size_t area) {
    for (std::size_t page = 0; page < kArea; ++page) {
      const std::size_t index = area * kArea + page;
      const bool gone =
          discarded[area] != 0 && page > next_in(area) && page <= next_in(area) + kDiscarded;
      gone ? expect_zero(pages, index) : expect(pages, index, seed);
    }
  };
  const auto approach = [&](const std::string& which) {
    const std::size_t area = std::stoul(which), next = area * kArea + next_in(area);
    for (const std::size_t ahead : {31, 30, 28, 24, 16}) expect(pages, next - ahead, seed);
    return "ok";
  };
  const auto discard = [&](const std::string& which) {
    const std::size_t area = std::stoul(which), next = area * kArea + next_in(area);
    crew.each([&](std::size_t thread) {
      if (thread == 0) return expect(pages, next, seed);
      must(::madvise(pages.page(next + 1), kDiscarded * kPageSize, MADV_DONTNEED), "madvise");
      for (std::size_t page = 1; page <= kDiscarded; ++page) expect_zero(pages, next + page);
    });
    discarded[area] = 1;
    expect_area(area);
    return "ok";
  };
  return serve(
      [&] {
        for (std::size_t area = 0; area < kAreas; ++area) expect_area(area);
      },
      {{"approach", approach}, {"discard", discard}});
}
