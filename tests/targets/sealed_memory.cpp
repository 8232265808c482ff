// SPDX-License-Identifier: Apache-2.0
//
// State: memory that is sealed (mseal), with contents, beside memory that is not.
#include "memory.hpp"

using namespace target;

int main() {
  constexpr long kMseal = 462;
  const std::uint64_t seed = random_number();
  const Pages pages = map(96, MAP_PRIVATE | MAP_ANONYMOUS);
  for (std::size_t index = 0; index < pages.count; index += 2) fill(pages, index, seed);
  if (::syscall(kMseal, pages.page(32), 32 * kPageSize, 0) != 0)
    return say("skip: mseal: " + std::string{std::strerror(errno)}), 0;
  protect(pages, 0, PROT_READ);
  return serve([&] {
    for (std::size_t index = 0; index < pages.count; ++index)
      index % 2 == 0 ? expect(pages, index, seed) : expect_zero(pages, index);
    require(::mprotect(pages.page(32), kPageSize, PROT_READ) == -1 && errno == EPERM,
            "the memory is not sealed");
    require(::munmap(pages.page(63), kPageSize) == -1 && errno == EPERM, "nor its last page");
    protect(pages, 31, PROT_READ | PROT_WRITE);
    protect(pages, 64, PROT_READ | PROT_WRITE);
  });
}
