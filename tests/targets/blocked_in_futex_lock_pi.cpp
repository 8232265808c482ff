// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in futex(FUTEX_LOCK_PI), waiting for a lock that another thread holds.
#include <linux/futex.h>

#include "blocked.hpp"

using namespace target;

static std::atomic<std::uint32_t> word = 0;

static void lock() {
  must(::syscall(SYS_futex, &word, FUTEX_LOCK_PI_PRIVATE, 0, nullptr), "FUTEX_LOCK_PI");
}

static void unlock() {
  must(::syscall(SYS_futex, &word, FUTEX_UNLOCK_PI_PRIVATE), "FUTEX_UNLOCK_PI");
}

static long wait_for_lock(long timeout_ms) {
  timespec deadline{};
  ::clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_sec += (timeout_ms < 0 ? kHourMs : timeout_ms) / 1000 + 1;  // never too early
  const long result = raw(SYS_futex, &word, FUTEX_LOCK_PI_PRIVATE, 0, &deadline);
  if (result == 0) unlock();
  return result;
}

// The leader holds the lock but for the moments in which it lets the waiter have it.
static void hand_over() {
  unlock();
  const auto me = static_cast<std::uint32_t>(::getpid());
  await([me] { return (word & FUTEX_TID_MASK) != me; }, "the lock did not change hands");
  lock();
}

int main() {
  lock();
  return serve_wait({.number = SYS_futex,
                     .call = wait_for_lock,
                     .release = hand_over,
                     .released = 0,
                     .timed_out = -ETIMEDOUT});
}
