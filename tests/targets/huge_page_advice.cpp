// SPDX-License-Identifier: Apache-2.0
//
// State: mappings with advice: huge pages wanted, unwanted, sequential and random access, merging
// (where the kernel can); one that wants huge pages is full.
//   "huge?"  how many KiB of that are in huge pages
#include "memory.hpp"

using namespace target;

int main() {
  constexpr std::size_t kPages = 8 << 20 >> 12;
  const std::uint64_t seed = random_number();
  struct Advised {
    Pages pages;
    int advice;
    const char* flag;
  };
  std::vector<Advised> advised = {
      {map(kPages, MAP_PRIVATE | MAP_ANONYMOUS), MADV_HUGEPAGE, " hg "},
      {map(kPages, MAP_PRIVATE | MAP_ANONYMOUS), MADV_NOHUGEPAGE, " nh "},
      {map(16, MAP_PRIVATE | MAP_ANONYMOUS), MADV_SEQUENTIAL, " sr "},
      {map(16, MAP_PRIVATE | MAP_ANONYMOUS), MADV_RANDOM, " rr "}};
  const Pages merged = map(16, MAP_PRIVATE | MAP_ANONYMOUS);
  if (::madvise(merged.start, merged.count * kPageSize, MADV_MERGEABLE) == 0)
    advised.push_back({merged, MADV_MERGEABLE, " mg "});
  for (const auto& [pages, advice, flag] : advised) {
    must(::madvise(pages.start, pages.count * kPageSize, advice), "madvise");
    for (std::size_t index = 0; index < pages.count; index += 3) fill(pages, index, seed);
  }
  const Pages full = map(kPages, MAP_PRIVATE | MAP_ANONYMOUS);
  must(::madvise(full.start, full.count * kPageSize, MADV_HUGEPAGE), "madvise");
  for (std::size_t index = 0; index < kPages; ++index) fill(full, index, seed);
  const auto check = [&] {
    for (std::size_t index = 0; index < kPages; ++index) expect(full, index, seed);
    for (const auto& [pages, advice, flag] : advised) {
      require(flags_at(pages.start).find(flag) != std::string::npos, std::string{"no"} + flag);
      for (std::size_t index = 0; index < pages.count; ++index)
        index % 3 == 0 ? expect(pages, index, seed) : expect_zero(pages, index);
    }
  };
  const auto huge = [&](auto&) { return smaps_at(full.start, "AnonHugePages:"); };
  return serve(check, {{"huge?", huge}});
}
