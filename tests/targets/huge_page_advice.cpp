// SPDX-License-Identifier: Apache-2.0
//
// State: mappings with advice: huge pages wanted, unwanted, sequential and random access.
#include <sstream>

#include "memory.hpp"

using namespace target;

/// The VmFlags of the mapping at `address`, as " rd wr … ".
static std::string flags_at(const void* address) {
  char start[32];
  std::snprintf(start, sizeof start, "%lx-", reinterpret_cast<unsigned long>(address));
  std::istringstream lines{read_file("/proc/self/smaps")};
  bool found = false;
  for (std::string line; std::getline(lines, line);) {
    found = found || line.starts_with(start);
    if (found && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

int main() {
  constexpr std::size_t kPages = 8 << 20 >> 12;
  const std::uint64_t seed = random_number();
  const struct {
    Pages pages;
    int advice;
    const char* flag;
  } advised[] = {{map(kPages, MAP_PRIVATE | MAP_ANONYMOUS), MADV_HUGEPAGE, " hg "},
                 {map(kPages, MAP_PRIVATE | MAP_ANONYMOUS), MADV_NOHUGEPAGE, " nh "},
                 {map(16, MAP_PRIVATE | MAP_ANONYMOUS), MADV_SEQUENTIAL, " sr "},
                 {map(16, MAP_PRIVATE | MAP_ANONYMOUS), MADV_RANDOM, " rr "}};
  for (const auto& [pages, advice, flag] : advised) {
    must(::madvise(pages.start, pages.count * kPageSize, advice), "madvise");
    for (std::size_t index = 0; index < pages.count; index += 3) fill(pages, index, seed);
  }
  return serve([&] {
    for (const auto& [pages, advice, flag] : advised) {
      require(flags_at(pages.start).find(flag) != std::string::npos, std::string{"no"} + flag);
      for (std::size_t index = 0; index < pages.count; ++index)
        index % 3 == 0 ? expect(pages, index, seed) : expect_zero(pages, index);
    }
  });
}
