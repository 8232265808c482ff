// SPDX-License-Identifier: Apache-2.0
//
// State: shared anonymous memory with a second view of all of it, and a third of a part; one page
// of the first view may not be written.  Of another one the view that comes first is of its middle.
#include "memory.hpp"

using namespace target;

/// mremap of a shared mapping with an old size of 0 makes another view of the same object.
static Pages view_of(const Pages& pages, std::size_t first, std::size_t count) {
  void* start = ::mremap(pages.page(first), 0, count * kPageSize, MREMAP_MAYMOVE);
  require(start != MAP_FAILED, "mremap");
  return {static_cast<char*>(start), count};
}

static Pages view_at(char* place, const Pages& pages, std::size_t first, std::size_t count) {
  void* start = ::mremap(pages.page(first), 0, count * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                         static_cast<void*>(place));
  require(start == place, "mremap");
  return {place, count};
}

int main() {
  const std::uint64_t seed = random_number();
  const Pages pages = map(64, MAP_SHARED | MAP_ANONYMOUS);
  const Pages second = view_of(pages, 0, 64), part = view_of(pages, 16, 8);
  const Pages other = map(4, MAP_SHARED | MAP_ANONYMOUS);  // another object
  for (std::size_t index = 0; index < 32; ++index) fill(pages, index, seed);
  fill(other, 0, seed + 1);
  protect(pages, 3, PROT_READ);
  const Pages place = map(64, MAP_PRIVATE | MAP_ANONYMOUS, PROT_NONE);
  const Pages origin = map(16, MAP_SHARED | MAP_ANONYMOUS);
  const Pages middle = view_at(place.page(8), origin, 4, 8);
  const Pages whole = view_at(place.page(32), origin, 0, 16);
  for (std::size_t index = 0; index < 16; ++index) fill(whole, index, seed + 2);
  must(::munmap(origin.start, origin.count * kPageSize), "munmap");

  return serve([&] {
    for (std::size_t index = 0; index < 32; ++index) {
      expect(pages, index, seed);
      expect(second, index, seed);
    }
    for (std::size_t index = 32; index < 63; ++index) expect_zero(second, index);
    expect(other, 0, seed + 1);
    for (std::size_t index = 0; index < 16; ++index) expect(whole, index, seed + 2);
    require(middle.words(1)[7] == whole.words(5)[7], "the view of the middle shows other memory");
    const std::uint64_t number = random_number();
    pages.words(20)[5] = number;
    require(second.words(20)[5] == number, "the second view shows other memory");
    require(part.words(4)[5] == number, "the third view shows other memory");
    part.words(4)[5] = pattern(seed, 20 * kWordsPerPage + 5);
    expect(pages, 20, seed);
  });
}
