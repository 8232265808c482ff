// SPDX-License-Identifier: Apache-2.0
//
// State: droppable memory, which may lose its contents at any time and never survives a snapshot.
// "word?" says one of the words that it held at first.
#include "memory.hpp"

using namespace target;

int main() {
  constexpr int kDroppable = 8;
  const std::uint64_t seed = random_number();
  void* const start =
      ::mmap(nullptr, 32 * kPageSize, PROT_READ | PROT_WRITE, kDroppable | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED)
    return say("skip: MAP_DROPPABLE: " + std::string{std::strerror(errno)}), 0;
  const Pages pages{static_cast<char*>(start), 32};
  for (std::size_t index = 0; index < pages.count; ++index) fill(pages, index, seed);
  const auto check = [=] {
    require(has_flag(pages.start, "dp"), "the memory is not droppable");
    for (std::size_t index = 0; index < pages.count; ++index)
      pages.words(index)[0] == 0 ? expect_zero(pages, index) : expect(pages, index, seed);
  };
  return serve(check, {{"word?", [=](auto&) { return std::to_string(pattern(seed, 9999)); }}});
}
