// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in clock_nanosleep until a point in time.
#include "blocked.hpp"

using namespace target;

static long sleep_until(long timeout_ms) {
  const timespec deadline = monotonic_in(timeout_ms < 0 ? kHourMs : timeout_ms);
  return raw(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, nullptr);
}

int main() { return serve_wait({.number = SYS_clock_nanosleep, .call = sleep_until}); }
