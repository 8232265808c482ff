// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in futex(FUTEX_WAIT), without end or with a time from now.
#include <linux/futex.h>

#include "blocked.hpp"

using namespace target;

static int word = 0;

static long wait_on_word(long timeout_ms) {
  const timespec timeout = to_timespec(timeout_ms);
  return raw(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, timeout_ms < 0 ? nullptr : &timeout);
}

static void wake() { must(::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1), "wake"); }

int main() {
  return serve_wait({.number = SYS_futex,
                     .call = wait_on_word,
                     .release = wake,
                     .released = 0,
                     .timed_out = -ETIMEDOUT});
}
