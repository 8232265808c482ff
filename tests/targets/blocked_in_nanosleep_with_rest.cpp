// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in nanosleep, with a pointer for the time left that nobody may see written.
#include "blocked.hpp"

using namespace target;

static long sleep_ms(long timeout_ms) {
  const timespec time = to_timespec(timeout_ms < 0 ? kHourMs : timeout_ms);
  timespec rest = {-7, -7};
  return raw(SYS_nanosleep, &time, &rest);
}

int main() { return serve_wait({.number = SYS_nanosleep, .call = sleep_ms}); }
