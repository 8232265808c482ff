// SPDX-License-Identifier: Apache-2.0
//
// State: memory with contents but without protection, low addresses, an executable stack.
#include "memory.hpp"

using namespace target;

int main() {
  const std::uint64_t seed = random_number();
  void* const low = ::mmap(reinterpret_cast<void*>(0x10000), 8 * kPageSize, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  require(low != MAP_FAILED, "no memory at 64 KiB");
  const Pages all[] = {map(8, MAP_PRIVATE | MAP_ANONYMOUS),
                       map(600, MAP_PRIVATE | MAP_ANONYMOUS),
                       map(8, MAP_SHARED | MAP_ANONYMOUS),
                       map(8, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT),
                       {static_cast<char*>(low), 8}};
  const auto protect_all = [&](int protection) {
    for (const Pages& pages : all)
      must(::mprotect(pages.start, pages.count * kPageSize, protection), "mprotect");
  };
  for (const Pages& pages : all)
    for (std::size_t index = 0; index < pages.count; index += 2) fill(pages, index, seed);
  protect_all(PROT_NONE);
  const auto stack_page = reinterpret_cast<std::uintptr_t>(&seed) / kPageSize * kPageSize;
  must(::mprotect(reinterpret_cast<void*>(stack_page), kPageSize,
                  PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN),
       "mprotect of the stack");
  return serve([&] {
    for (const Pages& pages : all) require(!readable(pages.start), "the memory can be read");
    require(has_flag(&seed, "ex"), "the stack cannot be executed");
    protect_all(PROT_READ);
    for (const Pages& pages : all)
      for (std::size_t index = 0; index < pages.count; ++index)
        index % 2 == 0 ? expect(pages, index, seed) : expect_zero(pages, index);
    protect_all(PROT_NONE);
  });
}
