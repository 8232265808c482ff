// SPDX-License-Identifier: Apache-2.0
//
// State: POSIX timers of every kind, with gaps between their ids: by signal, for a thread, silent;
// running, periodic, not armed; of several clocks.
#include <pthread.h>

#include <csignal>
#include <ctime>

#include "target.hpp"

using namespace target;

static constexpr std::int64_t kSecond = 1'000'000'000;

struct Timer {
  clockid_t clock;
  int notify;
  std::int64_t left_ns, interval_ns;
  int id = 0;
  std::int64_t last_ns = 0;
};

static timespec time_of(std::int64_t ns) { return {ns / kSecond, ns % kSecond}; }
static std::int64_t ns_of(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

static int create(clockid_t clock, int notify, pid_t thread) {
  sigevent event{};
  event.sigev_notify = notify;
  event.sigev_signo = SIGRTMIN + 2;
  event.sigev_value.sival_ptr = &event;
  event._sigev_un._tid = thread;
  int id = -1;
  must(::syscall(SYS_timer_create, clock, &event, &id), "timer_create");
  return id;
}

static void drop(int id) { must(::syscall(SYS_timer_delete, id), "timer_delete"); }

static void arm(const Timer& timer) {
  const itimerspec wanted = {time_of(timer.interval_ns), time_of(timer.left_ns)};
  must(::syscall(SYS_timer_settime, timer.id, 0, &wanted, nullptr), "timer_settime");
}

static void expect(Timer& timer) {
  itimerspec now{};
  const std::string name = "timer " + std::to_string(timer.id) + ": ";
  must(::syscall(SYS_timer_gettime, timer.id, &now), name + "timer_gettime");
  const std::int64_t left = ns_of(now.it_value);
  require(ns_of(now.it_interval) == timer.interval_ns, name + "another interval");
  require(left <= timer.last_ns, name + "has more time than before");
  require(timer.left_ns == 0 || left > timer.left_ns - 120 * kSecond, name + "has little left");
  timer.last_ns = left;
}

int main() {
  Crew crew{2};
  pid_t threads[2];
  clockid_t of_thread;
  crew.each([&](std::size_t i) {
    threads[i] = static_cast<pid_t>(::syscall(SYS_gettid));
    if (i == 1) ::pthread_getcpuclockid(::pthread_self(), &of_thread);
  });
  std::vector<Timer> timers = {
      {CLOCK_MONOTONIC, SIGEV_SIGNAL, 3600 * kSecond, 7 * kSecond + 5},
      {CLOCK_REALTIME, SIGEV_NONE, 3000 * kSecond, 0},
      {CLOCK_BOOTTIME, SIGEV_THREAD_ID, 2000 * kSecond, 0},
      {CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, 1000 * kSecond, 3 * kSecond},
      {of_thread, SIGEV_THREAD_ID, 500 * kSecond, 0},
      {CLOCK_MONOTONIC, SIGEV_SIGNAL, 0, 0},
      {CLOCK_TAI, SIGEV_SIGNAL, 800 * kSecond, 0},
  };
  for (Timer& timer : timers) {
    drop(create(CLOCK_MONOTONIC, SIGEV_NONE, 0));  // a gap
    timer.id = create(timer.clock, timer.notify, threads[0]);
    timer.last_ns = timer.left_ns + (timer.left_ns != 0 ? 10'000'000 : 0);  // CPU time: a tick more
    if (timer.left_ns != 0) arm(timer);
  }
  return serve([&] {
    for (Timer& timer : timers) expect(timer);
    const int fresh = create(CLOCK_MONOTONIC, SIGEV_NONE, 0);
    for (const Timer& timer : timers) require(timer.id != fresh, "an id was given out twice");
    drop(fresh);
  });
}
