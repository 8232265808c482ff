// SPDX-License-Identifier: Apache-2.0
//
// State: timers have expired and their signals are blocked: a periodic interval timer, which stands
// still until then, a periodic POSIX timer, which counts what it misses, and one that rings once.
#include <sys/time.h>

#include <csignal>
#include <ctime>

#include "target.hpp"

using namespace target;

static std::uint64_t bit(int number) { return 1ull << (number - 1); }
static const int kPeriodic = SIGRTMIN + 4, kOnce = SIGRTMIN + 5;

static std::uint64_t pending() {
  std::uint64_t set = 0;
  must(::syscall(SYS_rt_sigpending, &set, 8), "rt_sigpending");
  return set;
}

static siginfo_t take(int signal) {
  const std::uint64_t wanted = bit(signal);
  siginfo_t info{};
  const timespec patience = {20, 0};
  require(raw(SYS_rt_sigtimedwait, &wanted, &info, &patience, 8) == signal,
          "signal " + std::to_string(signal) + " never came");
  return info;
}

static int create(int signal) {
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = signal;
  event.sigev_value.sival_int = signal * 10;
  int id = -1;
  must(::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id), "timer_create");
  return id;
}

static void arm(int id, long ns, bool periodic) {
  itimerspec wanted = {};
  wanted.it_value.tv_nsec = ns;
  if (periodic) wanted.it_interval.tv_nsec = ns;
  must(::syscall(SYS_timer_settime, id, 0, &wanted, nullptr), "timer_settime");
}

static void await_all() {
  const std::uint64_t all = bit(SIGALRM) | bit(kPeriodic) | bit(kOnce);
  await([&] { return (pending() & all) == all; }, "a signal is not pending");
}

int main() {
  const std::uint64_t blocked = bit(SIGALRM) | bit(kPeriodic) | bit(kOnce);
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, nullptr, 8), "set the mask");
  const int periodic = create(kPeriodic), once = create(kOnce);
  const itimerval often = {{0, 10'000}, {0, 10'000}};
  must(::setitimer(ITIMER_REAL, &often, nullptr), "setitimer");
  arm(periodic, 10'000'000, true);
  arm(once, 1'000'000, false);
  await_all();
  return serve([&] {
    require((pending() & blocked) == blocked, "the signal of an expired timer is gone");
    take(SIGALRM);
    take(SIGALRM);  // it goes on

    const siginfo_t first = take(kPeriodic);
    require(first.si_code == SI_TIMER && first.si_timerid == periodic, "not of the timer");
    require(first.si_value.sival_int == kPeriodic * 10, "another value");
    require(first.si_overrun >= 0 && first.si_overrun < 100'000, "an absurd overrun");
    take(kPeriodic);

    const siginfo_t last = take(kOnce);
    require(last.si_code == SI_TIMER && last.si_timerid == once && last.si_overrun == 0, "once");
    require((pending() & bit(kOnce)) == 0, "it rang twice");
    arm(once, 1'000'000, false);
    await_all();
  });
}
