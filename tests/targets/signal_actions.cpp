// SPDX-License-Identifier: Apache-2.0
//
// State: signal actions with all kinds of flags, masks and restorers, ignored signals, handlers.
#include <csignal>

#include "target.hpp"

using namespace target;

struct KernelAction {
  std::uint64_t handler, flags, restorer, mask;
  bool operator==(const KernelAction&) const = default;
};

static volatile sig_atomic_t last_signal = 0;
static volatile int last_value = 0;

static void note(int number, siginfo_t* info, void*) {
  last_signal = number;
  last_value = info->si_value.sival_int;
}

static KernelAction action_of(int number) {
  KernelAction action{};
  must(::syscall(SYS_rt_sigaction, number, nullptr, &action, 8), "rt_sigaction");
  return action;
}

static void set(int number, int flags, int also_blocked) {
  struct sigaction action {};
  action.sa_sigaction = note;
  action.sa_flags = flags | SA_SIGINFO;
  sigaddset(&action.sa_mask, also_blocked);
  must(::sigaction(number, &action, nullptr), "sigaction");
}

int main() {
  set(SIGUSR1, SA_RESTART, SIGTERM);
  set(SIGUSR2, SA_NODEFER | SA_ONSTACK, SIGHUP);
  set(SIGCHLD, SA_NOCLDSTOP | SA_NOCLDWAIT, SIGRTMAX);
  set(SIGRTMIN + 3, SA_RESETHAND, SIGRTMIN + 4);
  set(SIGRTMAX, 0, SIGINT);
  std::signal(SIGHUP, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  KernelAction actions[65];
  for (int number = 1; number <= 64; ++number) actions[number] = action_of(number);

  return serve([&] {
    for (int number = 1; number <= 64; ++number)
      require(actions[number] == action_of(number), "signal " + std::to_string(number));
    static int value = 0;
    must(::sigqueue(::getpid(), SIGRTMAX, {.sival_int = ++value}), "sigqueue");
    require(last_signal == SIGRTMAX && last_value == value, "the handler did not run");
    must(::raise(SIGHUP), "raise");
  });
}
