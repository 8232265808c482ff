// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in futex(FUTEX_WAIT_BITSET) until a point in time, as pthread_cond_timedwait is.
#include <linux/futex.h>

#include "blocked.hpp"

using namespace target;

static int word = 0;

static long wait_on_word(long timeout_ms) {
  const timespec deadline = monotonic_in(timeout_ms < 0 ? kHourMs : timeout_ms);
  return raw(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &deadline, nullptr,
             FUTEX_BITSET_MATCH_ANY);
}

static void wake() { must(::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1), "wake"); }

int main() {
  return serve_wait({.number = SYS_futex,
                     .call = wait_on_word,
                     .release = wake,
                     .released = 0,
                     .timed_out = -ETIMEDOUT});
}
