// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in nanosleep, which has no pointer for the time left.
#include "blocked.hpp"

using namespace target;

static long sleep_ms(long timeout_ms) {
  const timespec time = to_timespec(timeout_ms < 0 ? kHourMs : timeout_ms);
  return raw(SYS_nanosleep, &time, nullptr);
}

int main() { return serve_wait({.number = SYS_nanosleep, .call = sleep_ms}); }
