// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in rt_sigsuspend, whose signal mask holds only inside the call.
#include <csignal>

#include "blocked.hpp"

using namespace target;

static std::atomic<pid_t> waiter = 0;

static long suspend_once(long) {
  const std::uint64_t inside = 1u << (SIGUSR2 - 1), outside = 1u << (SIGUSR1 - 1);
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, nullptr, 8), "set the mask");
  waiter = static_cast<pid_t>(::syscall(SYS_gettid));
  const long result = raw(SYS_rt_sigsuspend, &inside, 8);
  std::uint64_t after = 0;
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, nullptr, &after, 8), "get the mask");
  return after == outside ? result : -EPROTO;
}

static void signal_waiter() {
  must(::syscall(SYS_tgkill, ::getpid(), waiter.load(), SIGUSR1), "tgkill");
}

int main() {
  std::signal(SIGUSR1, [](int) {});
  return serve_wait({.number = SYS_rt_sigsuspend,
                     .call = suspend_once,
                     .release = signal_waiter,
                     .released = -EINTR});
}
