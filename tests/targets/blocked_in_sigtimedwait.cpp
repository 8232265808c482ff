// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in rt_sigtimedwait, without end or with a time.  The kernel itself returns EINTR
// from this call when the thread was merely stopped.
#include <csignal>

#include "blocked.hpp"

using namespace target;

static std::atomic<pid_t> waiter = 0;

static long wait_for_signal(long timeout_ms) {
  const std::uint64_t wanted = 1u << (SIGUSR1 - 1);
  const timespec timeout = to_timespec(timeout_ms);
  if (timeout_ms < 0) waiter = static_cast<pid_t>(::syscall(SYS_gettid));
  const long result =
      raw(SYS_rt_sigtimedwait, &wanted, nullptr, timeout_ms < 0 ? nullptr : &timeout, 8);
  expect_untouched(timeout, timeout_ms);
  return result;
}

static void signal_waiter() {
  must(::syscall(SYS_tgkill, ::getpid(), waiter.load(), SIGUSR1), "tgkill");
}

int main() {
  const std::uint64_t blocked = 1u << (SIGUSR1 - 1);  // inherited by every thread
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, nullptr, 8), "set the mask");
  return serve_wait({.number = SYS_rt_sigtimedwait,
                     .call = wait_for_signal,
                     .release = signal_waiter,
                     .released = SIGUSR1,
                     .timed_out = -EAGAIN});
}
