// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in pause, which only a handled signal ends.
#include <csignal>

#include "blocked.hpp"

using namespace target;

static std::atomic<pid_t> waiter = 0;

static long pause_once(long) {
  waiter = static_cast<pid_t>(::syscall(SYS_gettid));
  return raw(SYS_pause);
}

static void signal_waiter() {
  must(::syscall(SYS_tgkill, ::getpid(), waiter.load(), SIGUSR1), "tgkill");
}

int main() {
  std::signal(SIGUSR1, [](int) {});
  return serve_wait(
      {.number = SYS_pause, .call = pause_once, .release = signal_waiter, .released = -EINTR});
}
