// SPDX-License-Identifier: Apache-2.0
//
// State: a heap in use, small and large blocks; the program break must still move.
#include "target.hpp"

using namespace target;

struct Block {
  std::vector<std::uint64_t> words;
  std::uint64_t seed = random_number();

  explicit Block(std::size_t count) : words(count) {
    for (std::size_t index = 0; index < count; ++index) words[index] = pattern(seed, index);
  }
  void expect() const {
    for (std::size_t index = 0; index < words.size(); ++index)
      require(words[index] == pattern(seed, index), "a block of the heap has changed");
  }
};

static void grow_and_shrink_break() {
  constexpr std::intptr_t kBytes = 1 << 20;
  char* const end = static_cast<char*>(::sbrk(0));
  require(::sbrk(kBytes) == end, "the program break cannot grow");
  for (std::intptr_t index = 0; index < kBytes; ++index)
    require(end[index] == 0, "fresh heap memory is not zero");
  std::memset(end, 0x5a, kBytes);
  require(::sbrk(-kBytes) == end + kBytes && ::sbrk(0) == end, "the program break cannot shrink");
}

int main() {
  std::vector<Block> blocks;
  for (std::size_t count = 1; count < 300'000; count += count / 3 + 1) blocks.emplace_back(count);
  return serve([&] {
    for (const Block& block : blocks) block.expect();
    blocks.erase(blocks.begin());
    for (const std::size_t count : {3u, 1000u, 50'000u}) blocks.emplace_back(count);
    grow_and_shrink_break();
  });
}
