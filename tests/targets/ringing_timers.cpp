// SPDX-License-Identifier: Apache-2.0
//
// State: timers that expire all the time, an interval timer and one that signals a thread; their
// handlers run while the program waits.
#include <sys/time.h>

#include <atomic>
#include <csignal>
#include <ctime>

#include "target.hpp"

using namespace target;

static std::atomic<int> alarms = 0, ticks = 0, wrong_ticks = 0;
static std::atomic<pid_t> ticking_thread = 0;

static void on_alarm(int) { ++alarms; }

static void on_tick(int, siginfo_t* info, void*) {
  ++ticks;
  if (info->si_value.sival_int != 4242 || ::syscall(SYS_gettid) != ticking_thread) ++wrong_ticks;
}

static void handle(int signal, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  must(::sigaction(signal, &action, nullptr), "sigaction");
}

int main() {
  handle(SIGALRM, [](int signal, siginfo_t*, void*) { on_alarm(signal); });
  handle(SIGRTMIN + 3, on_tick);
  Crew crew{1};
  crew.each([](std::size_t) { ticking_thread = static_cast<pid_t>(::syscall(SYS_gettid)); });

  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGRTMIN + 3;
  event.sigev_value.sival_int = 4242;
  event._sigev_un._tid = ticking_thread;
  int timer = 0;
  must(::syscall(SYS_timer_create, CLOCK_BOOTTIME, &event, &timer), "timer_create");
  const itimerspec often = {{0, 20'000'000}, {0, 20'000'000}};
  must(::syscall(SYS_timer_settime, timer, 0, &often, nullptr), "timer_settime");
  const itimerval also = {{0, 30'000}, {0, 30'000}};
  must(::setitimer(ITIMER_REAL, &also, nullptr), "setitimer");

  return serve([&] {
    const int alarms_before = alarms, ticks_before = ticks;
    await([&] { return alarms > alarms_before + 1; }, "the interval timer stands still");
    await([&] { return ticks > ticks_before + 1; }, "the POSIX timer stands still");
    require(wrong_ticks == 0, "a signal with another value, or in another thread");
  });
}
