// SPDX-License-Identifier: Apache-2.0
//
// State: the three interval timers run, and none of them ends soon.
#include <sys/time.h>

#include <csignal>

#include "target.hpp"

using namespace target;

static constexpr std::int64_t kSecond = 1'000'000;
static constexpr std::int64_t kLeft[] = {3600 * kSecond, 3000 * kSecond, 2000 * kSecond};
static constexpr std::int64_t kInterval[] = {7 * kSecond + 5, 0, 11 * kSecond};

static timeval time_of(std::int64_t us) { return {us / kSecond, us % kSecond}; }
static std::int64_t us_of(const timeval& time) { return time.tv_sec * kSecond + time.tv_usec; }

int main() {
  std::int64_t last[3];
  for (int which = 0; which < 3; ++which) {
    const itimerval wanted = {time_of(kInterval[which]), time_of(kLeft[which])};
    must(::syscall(SYS_setitimer, which, &wanted, nullptr), "setitimer");
    last[which] = kLeft[which];
  }
  return serve([&] {
    for (int which = 0; which < 3; ++which) {
      itimerval now;
      must(::syscall(SYS_getitimer, which, &now), "getitimer");
      const std::int64_t left = us_of(now.it_value);
      const std::string name = "timer " + std::to_string(which) + ": ";
      require(us_of(now.it_interval) == kInterval[which], name + "another interval");
      // The kernel rounds those of CPU time up to its tick whenever they are set.
      const std::int64_t tick = which == ITIMER_REAL ? 0 : 10'000;
      require(left <= last[which] + tick, name + "has more time than before");
      require(left > kLeft[which] - 120 * kSecond, name + "only " + std::to_string(left) + " µs");
      last[which] = left;
    }
  });
}
