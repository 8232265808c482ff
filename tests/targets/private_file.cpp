// SPDX-License-Identifier: Apache-2.0
//
// State: private mappings of a file in FOLDER, some pages written (and so no longer the file's).
#include "memory.hpp"

using namespace target;

int main(int, char** arguments) {
  const std::uint64_t seed = random_number(), other_seed = random_number();
  const int file = make_file(std::string{arguments[1]} + "/private_file", 16, seed);
  const Pages pages = map(16, MAP_PRIVATE, PROT_READ | PROT_WRITE, file);
  const Pages tail = map(4, MAP_PRIVATE, PROT_READ, file, 12 * kPageSize);
  ::close(file);
  for (const std::size_t index : {2u, 3u, 9u}) fill(pages, index, other_seed);
  protect(pages, 9, PROT_READ);

  return serve([&] {
    for (std::size_t index = 0; index < 16; ++index) {
      const bool written = index == 2 || index == 3 || index == 9;
      expect(pages, index, written ? other_seed : seed);
    }
    for (std::size_t index = 0; index < 4 * kWordsPerPage; ++index)
      require(tail.words(0)[index] == pattern(seed, 12 * kWordsPerPage + index), "the tail");
  });
}
