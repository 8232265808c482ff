// SPDX-License-Identifier: Apache-2.0
//
// State: memory that a fork does not get (MADV_DONTFORK), and memory that is empty in it
// (MADV_WIPEONFORK).
#include "memory.hpp"

using namespace target;

int main() {
  constexpr std::size_t kPages = 300;
  const std::uint64_t seed = random_number();
  const Pages absent = map(kPages, MAP_PRIVATE | MAP_ANONYMOUS);
  const Pages empty = map(kPages, MAP_PRIVATE | MAP_ANONYMOUS);
  must(::madvise(absent.start, kPages * kPageSize, MADV_DONTFORK), "MADV_DONTFORK");
  must(::madvise(empty.start, kPages * kPageSize, MADV_WIPEONFORK), "MADV_WIPEONFORK");
  for (std::size_t index = 0; index < kPages; ++index) {
    fill(absent, index, seed);
    fill(empty, index, seed + 1);
  }
  return serve([&] {
    for (std::size_t index = 0; index < kPages; ++index) {
      expect(absent, index, seed);
      expect(empty, index, seed + 1);
    }
    require(has_flag(absent.start, "dc"), "a fork would get what it must not");
    require(has_flag(empty.start, "wf"), "a fork would get what it must not");
  });
}
