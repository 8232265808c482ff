// SPDX-License-Identifier: Apache-2.0
//
// State: COUNT mappings that the kernel cannot merge, a page written in each.
#include "memory.hpp"

using namespace target;

int main(int argc, char** arguments) {
  const std::size_t count = argc > 1 ? std::strtoul(arguments[1], nullptr, 10) : 1000;
  const Pages pages = map(count * 2, MAP_PRIVATE | MAP_ANONYMOUS);
  const std::uint64_t seed = random_number();
  for (std::size_t index = 0; index < count; ++index) {
    fill(pages, 2 * index, seed);
    if (index % 2 != 0)
      must(::mprotect(pages.page(2 * index), 2 * kPageSize, PROT_READ), "mprotect");
  }
  return serve([&] {
    for (std::size_t index = 0; index < count; ++index) expect(pages, 2 * index, seed);
  });
}
