// SPDX-License-Identifier: Apache-2.0
//
// State: the clocks of the process, which never go back.  With the argument "ahead" they are days
// ahead of the machine's, so that a restore has to set them forward.
#include <ctime>

#include "clocks_ahead.hpp"

using namespace target;

static constexpr clockid_t kClocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW,
                                        CLOCK_MONOTONIC_COARSE};
static constexpr std::int64_t kSecond = 1'000'000'000;

static std::int64_t ns_of(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

/// By the vdso.
static std::int64_t now(clockid_t clock) {
  timespec time;
  must(::clock_gettime(clock, &time), "clock_gettime");
  return ns_of(time);
}

static std::int64_t by_the_kernel(clockid_t clock) {
  timespec time;
  must(::syscall(SYS_clock_gettime, clock, &time), "clock_gettime");
  return ns_of(time);
}

int main(int, char** arguments) {
  try {
    if (arguments[1] != nullptr) go_ahead(arguments);
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  std::vector<std::int64_t> last;
  for (const clockid_t clock : kClocks) last.push_back(now(clock));
  return serve([&] {
    for (std::size_t i = 0; i < last.size(); ++i) {
      const std::string name = "clock " + std::to_string(kClocks[i]) + ": ";
      const std::int64_t first = now(kClocks[i]), second = by_the_kernel(kClocks[i]),
                         third = now(kClocks[i]);
      require(first >= last[i], name + "went back by " + std::to_string(last[i] - first) + " ns");
      require(first - last[i] < 3600 * kSecond, name + "jumped");
      require(first <= second && second <= third, name + "vdso and kernel do not agree");
      last[i] = third;
    }
    // Until a moment that is just ahead.
    const std::int64_t until = now(CLOCK_MONOTONIC) + 1'000'000;
    const timespec moment = {until / kSecond, until % kSecond};
    must(::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, nullptr), "clock_nanosleep");
    require(now(CLOCK_MONOTONIC) >= until, "woke up too early");
    require(now(CLOCK_MONOTONIC) < until + 60 * kSecond, "woke up late");
  });
}
