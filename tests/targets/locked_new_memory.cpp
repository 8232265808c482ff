// SPDX-License-Identifier: Apache-2.0
//
// State: all memory, also what is mapped later, is locked (mlockall); with "ONFAULT" once touched.
#include "memory.hpp"

using namespace target;

int main(int, char** arguments) {
  const bool on_fault = arguments[1] != nullptr;
  const std::uint64_t seed = random_number();
  const Pages pages = map(64, MAP_PRIVATE | MAP_ANONYMOUS);
  for (std::size_t index = 0; index < pages.count; index += 2) fill(pages, index, seed);
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | (on_fault ? MCL_ONFAULT : 0)) != 0)
    return say("skip: mlockall: " + std::string{std::strerror(errno)}), 0;
  return serve([&] {
    for (std::size_t index = 0; index < pages.count; ++index)
      index % 2 == 0 ? expect(pages, index, seed) : expect_zero(pages, index);
    const Pages fresh = map(1, MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ);  // merges with no other
    const bool locked = has_flag(fresh.start, "lo"), late = has_flag(fresh.start, "lf");
    ::munmap(fresh.start, kPageSize);
    require(locked, "new memory is not locked");
    require(late == on_fault, "new memory is locked in another way");
  });
}
