// SPDX-License-Identifier: Apache-2.0
//
// State: thread-local variables (fs base) and a gs base of its own on each thread.
#include <asm/prctl.h>

#include "target.hpp"

using namespace target;

thread_local std::uint64_t local_number = 0;
thread_local std::uint64_t gs_block[2] = {};

static void set_up(std::uint64_t number) {
  local_number = gs_block[1] = number;
  must(::syscall(SYS_arch_prctl, ARCH_SET_GS, gs_block), "ARCH_SET_GS");
}

static void expect(std::uint64_t number) {
  std::uint64_t through_gs = 0;
  asm volatile("mov %%gs:8, %0" : "=r"(through_gs));
  require(local_number == number, "another thread_local variable");
  require(through_gs == number, "another gs base");
}

int main() {
  const std::uint64_t seed = random_number();
  Crew crew{3};
  crew.each([&](std::size_t index) { set_up(pattern(seed, index)); });
  set_up(seed);
  return serve([&] {
    expect(seed);
    crew.each([&](std::size_t index) { expect(pattern(seed, index)); });
  });
}
