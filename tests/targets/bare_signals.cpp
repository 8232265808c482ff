// SPDX-License-Identifier: Apache-2.0
//
// State: signals are pending of which the kernel had no room to say who sent them.
#include <sys/resource.h>

#include <csignal>

#include "target.hpp"

using namespace target;

static std::uint64_t bit(int number) { return 1ull << (number - 1); }
static const std::uint64_t kBlocked = bit(SIGUSR1) | bit(SIGUSR2) | bit(SIGRTMIN + 6);

static void raise_all() {
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  info.si_code = SI_QUEUE;
  info.si_pid = 4711;
  must(::syscall(SYS_rt_sigqueueinfo, ::getpid(), SIGUSR1, &info), "rt_sigqueueinfo");
  must(::kill(::getpid(), SIGRTMIN + 6), "kill");
}

static void raise_in_thread() {
  must(::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), SIGUSR2), "tgkill");
}

static void take(int signal) {
  const std::uint64_t wanted = bit(signal);
  siginfo_t info{};
  const timespec now{};
  require(raw(SYS_rt_sigtimedwait, &wanted, &info, &now, 8) == signal,
          "signal " + std::to_string(signal) + " is not pending");
  require(info.si_code == SI_USER && info.si_pid == 0, "it has a sender");
  require(raw(SYS_rt_sigtimedwait, &wanted, &info, &now, 8) == -EAGAIN, "it is there twice");
}

int main() {
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &kBlocked, nullptr, 8), "set the mask");
  Crew crew{1};
  rlimit limit;
  must(::getrlimit(RLIMIT_SIGPENDING, &limit), "getrlimit");
  limit.rlim_cur = 0;
  must(::setrlimit(RLIMIT_SIGPENDING, &limit), "setrlimit");
  raise_all();
  crew.each([](std::size_t) { raise_in_thread(); });
  return serve([&] {
    take(SIGUSR1);
    take(SIGRTMIN + 6);
    raise_all();
    crew.each([](std::size_t) {
      take(SIGUSR2);
      raise_in_thread();
    });
  });
}
