// SPDX-License-Identifier: Apache-2.0
//
// State: a main stack, and another mapping with MAP_GROWSDOWN, that must grow further.
#include "memory.hpp"

using namespace target;

__attribute__((noinline)) static std::uint64_t descend(std::uint64_t depth) {
  volatile std::uint64_t frame[256];
  frame[depth % 256] = depth;
  if (depth == 0) return 0;
  return descend(depth - 1) + frame[depth % 256];
}

/// One page, with room below that no other mapping took.
static Pages map_growing_page() {
  constexpr std::size_t kRoom = 4096;
  const Pages room = map(kRoom, MAP_PRIVATE | MAP_ANONYMOUS, PROT_NONE);
  must(::munmap(room.start, kRoom * kPageSize), "munmap");
  void* start = ::mmap(room.page(kRoom / 2), kPageSize, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
  require(start == room.page(kRoom / 2), "mmap with MAP_GROWSDOWN");
  return {static_cast<char*>(start), 1};
}

int main() {
  const std::uint64_t seed = random_number();
  const Pages growing = map_growing_page();
  fill(growing, 0, seed);
  std::size_t below = 0, depth = 10;

  return serve([&] {
    expect(growing, 0, seed);
    for (std::size_t page = 1; page <= below; ++page)
      require(growing.start[-static_cast<std::ptrdiff_t>(page * kPageSize)] == 'x', "lost");
    ++below;
    growing.start[-static_cast<std::ptrdiff_t>(below * kPageSize)] = 'x';
    depth += 300;  // 600 KiB
    require(descend(depth) == depth * (depth + 1) / 2, "a frame of the stack has changed");
  });
}
