// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in futex_waitv on two words, until a point in time.
#include "blocked.hpp"

using namespace target;

static int words[2] = {0, 0};

struct Waiter {  // struct futex_waitv, younger than Debian 12's headers
  std::uint64_t value, address;
  std::uint32_t flags, reserved;
};

static long wait_on_words(long timeout_ms) {
  constexpr long kNumber = 449;
  constexpr std::uint32_t kPrivateWord = 2 | 128;
  Waiter waiters[2] = {};
  for (int i = 0; i < 2; ++i)
    waiters[i] = {0, reinterpret_cast<std::uint64_t>(&words[i]), kPrivateWord, 0};
  const timespec deadline = monotonic_in(timeout_ms < 0 ? kHourMs : timeout_ms);
  return raw(kNumber, waiters, 2, 0, &deadline, CLOCK_MONOTONIC);
}

static void wake() { must(::syscall(SYS_futex, &words[1], 1 | 128, 1), "wake"); }

int main() {
  return serve_wait({.number = 449,
                     .call = wait_on_words,
                     .release = wake,
                     .released = 1,
                     .timed_out = -ETIMEDOUT});
}
