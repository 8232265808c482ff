// SPDX-License-Identifier: Apache-2.0
//
// State: MEBIBYTES of random private anonymous memory.
#include "memory.hpp"

using namespace target;

int main(int argc, char** arguments) {
  const std::size_t mebibytes = argc > 1 ? std::strtoul(arguments[1], nullptr, 10) : 64;
  const Pages pages = map(mebibytes << 8, MAP_PRIVATE | MAP_ANONYMOUS);
  const std::uint64_t seed = random_number();
  for (std::size_t index = 0; index < pages.count; ++index) fill(pages, index, seed);
  // A few pages spread over all of it answer at once; "check?" looks at every word.
  const auto sample = [=](auto&) {
    for (std::size_t index = 0; index < pages.count; index += pages.count / 16 + 1)
      expect(pages, index, seed);
    return "ok";
  };
  const auto check = [=] {
    for (std::size_t index = 0; index < pages.count; ++index) expect(pages, index, seed);
  };
  return serve(check, {{"sample?", sample}});
}
