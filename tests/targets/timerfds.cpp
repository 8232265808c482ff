// SPDX-License-Identifier: Apache-2.0
//
// State: timerfds: relative, absolute, periodic, not armed, with expirations that nobody has read,
// one that the setting of the clock cancels.  With the argument "ahead" the clocks of the process
// are days ahead of the machine's.
#include <sys/timerfd.h>

#include <algorithm>

#include "clocks_ahead.hpp"

using namespace target;

static constexpr std::int64_t kHour = 3600;

static int timer(int clock) {
  return static_cast<int>(must(::timerfd_create(clock, TFD_NONBLOCK), "timerfd_create"));
}

static void arm(int file, int flags, timespec value, timespec interval = {}) {
  const itimerspec times{.it_interval = interval, .it_value = value};
  must(::timerfd_settime(file, flags, &times, nullptr), "timerfd_settime");
}

static itimerspec left(int file) {
  itimerspec times{};
  must(::timerfd_gettime(file, &times), "timerfd_gettime");
  return times;
}

static void expect_left(int file, std::int64_t seconds, const std::string& which) {
  const auto found = left(file).it_value.tv_sec;
  require(found <= seconds && found > seconds - 600, which + ": " + std::to_string(found));
}

static long expirations(int file) {
  std::uint64_t count = 0;
  const long result = raw(SYS_read, file, &count, sizeof count);
  return result < 0 ? result : static_cast<long>(count);
}

static timespec in_an_hour(int clock) {
  timespec now{};
  must(::clock_gettime(clock, &now), "clock_gettime");
  return {now.tv_sec + kHour, now.tv_nsec};
}

int main(int, char** arguments) {
  try {
    if (arguments[1] != nullptr) go_ahead(arguments);
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  const int relative = timer(CLOCK_MONOTONIC), absolute = timer(CLOCK_MONOTONIC);
  const int wall = timer(CLOCK_REALTIME), boot = timer(CLOCK_BOOTTIME),
            idle = timer(CLOCK_REALTIME);
  const int periodic = timer(CLOCK_MONOTONIC), expired = timer(CLOCK_MONOTONIC);
  arm(relative, 0, {kHour, 0});
  arm(absolute, TFD_TIMER_ABSTIME, in_an_hour(CLOCK_MONOTONIC));
  arm(wall, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, in_an_hour(CLOCK_REALTIME));
  arm(boot, TFD_TIMER_ABSTIME, in_an_hour(CLOCK_BOOTTIME), {2 * kHour, 5});
  arm(periodic, 0, {0, 1}, {0, 1'000'000});
  long seen = 0;
  await([&] { return (seen += std::max(0L, expirations(periodic))) > 2; }, "a timer never expires");
  const auto expire = [&] {
    arm(expired, 0, {0, 1});
    await([&] { return left(expired).it_value.tv_nsec == 0; }, "a timer never expires");
  };
  expire();

  return serve([&] {
    expect_left(relative, kHour, "relative");
    expect_left(absolute, kHour, "absolute");
    expect_left(wall, kHour, "of the wall clock");
    expect_left(boot, kHour, "of the boot clock");
    require(left(boot).it_interval.tv_sec == 2 * kHour && left(boot).it_interval.tv_nsec == 5,
            "another interval");
    require(left(idle).it_value.tv_sec == 0 && expirations(idle) == -EAGAIN, "an idle timer runs");
    require(expirations(expired) == 1, "an expiration has been lost, or one has come");
    require(expirations(expired) == -EAGAIN, "it blocks, or expires again");
    await([&] { return expirations(periodic) > 0; }, "the periodic timer has stopped");
    expire();
  });
}
