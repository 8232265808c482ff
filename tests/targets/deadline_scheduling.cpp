// SPDX-License-Identifier: Apache-2.0
//
// State: a thread with the policy SCHED_DEADLINE.
#include <sched.h>

#include "target.hpp"

using namespace target;

struct Attributes {
  std::uint32_t size = sizeof(Attributes), policy = 6;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 2'000'000, deadline = 20'000'000, period = 30'000'000;
};

int main() {
  Crew crew{1};
  try {
    crew.each([](std::size_t) {
      Attributes wanted;
      must(::syscall(SYS_sched_setattr, 0, &wanted, 0), "sched_setattr");
    });
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  return serve([&] {
    crew.each([](std::size_t) {
      Attributes now;
      must(::syscall(SYS_sched_getattr, 0, &now, sizeof now, 0), "sched_getattr");
      require(now.policy == 6, "another policy");
      require(now.runtime == 2'000'000 && now.deadline == 20'000'000 && now.period == 30'000'000,
              "another bandwidth");
    });
  });
}
