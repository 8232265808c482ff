// SPDX-License-Identifier: Apache-2.0
#include "state/timers.hpp"

#include <linux/capability.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "sys/process.hpp"
#include "sys/ptrace.hpp"
#include "sys/time.hpp"

namespace icecore {
namespace {

constexpr std::size_t kIntervalTimers = 3;
constexpr int kRestoreIds = 77;  // PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15

// CLOCK_THREAD_CPUTIME_ID and CLOCK_PROCESS_CPUTIME_ID as /proc/PID/timers shows them: whose they
// are was settled when the timer was made.
constexpr int kOwnThread = -2;
constexpr int kOwnProcess = -6;

std::uint64_t as_ns(const ::timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * sys::kSecond +
         static_cast<std::uint64_t>(time.tv_nsec);
}

std::uint64_t as_us(const ::timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 +
         static_cast<std::uint64_t>(time.tv_usec);
}

::timespec as_timespec(std::uint64_t ns) {
  return {.tv_sec = static_cast<::time_t>(ns / sys::kSecond),
          .tv_nsec = static_cast<long>(ns % sys::kSecond)};
}

::timeval as_timeval(std::uint64_t us) {
  return {.tv_sec = static_cast<::time_t>(us / 1'000'000),
          .tv_usec = static_cast<::suseconds_t>(us % 1'000'000)};
}

/// The process or thread of a CPU clock, as clock_getcpuclockid(3) names it.
pid_t owner_of_clock(int clock) { return ~(clock >> 3); }
bool is_cpu_clock(int clock) { return clock < 0; }

/// As the process itself knows the thread; 0 when it is none of its.
pid_t inner_tid(const Capture& capture, pid_t tid) {
  for (const Tracee& thread : capture.process.threads())
    if (thread.tid() == tid) return thread.inner_tid();
  return 0;
}

bool is_of_the_process(const Capture& capture, int clock) {
  const pid_t owner = owner_of_clock(clock);
  return std::ranges::any_of(capture.process.threads(),
                             [&](const Tracee& thread) { return thread.inner_tid() == owner; });
}

void refuse_clock(Capture& capture, const sys::ListedTimer& timer) {
  if (!is_cpu_clock(timer.clock) || timer.clock == kOwnProcess) return;
  if (timer.clock == kOwnThread) {
    if (capture.process.threads().size() > 1)
      capture.refusals.add(
          "POSIX timer {}: counts the CPU time of one thread (CLOCK_THREAD_CPUTIME_ID), and Linux "
          "does not tell of which: cannot be kept; pthread_getcpuclockid(3) gives a clock that can",
          timer.id);
  } else if (!is_of_the_process(capture, timer.clock)) {
    capture.refusals.add(
        "POSIX timer {}: counts the CPU time of process {}, which is not part of the snapshot: "
        "cannot be kept",
        timer.id, owner_of_clock(timer.clock));
  }
}

/// Removes the first siginfo, from `from` on, that the timer sent.
bool take_signal(std::vector<std::uint8_t>& pending, std::size_t from,
                 const state::PosixTimer& timer) {
  for (std::size_t at = from; at + sizeof(siginfo_t) <= pending.size(); at += sizeof(siginfo_t)) {
    siginfo_t info;
    std::memcpy(&info, pending.data() + at, sizeof info);
    if (info.si_code != SI_TIMER || info.si_signo != timer.signal() ||
        info.si_timerid != timer.id())
      continue;
    const auto begin = pending.begin() + static_cast<std::ptrdiff_t>(at);
    pending.erase(begin, begin + sizeof(siginfo_t));
    return true;
  }
  return false;
}

/// A timer whose signal is pending, and which may have sent it only after it was asked.
state::PosixTimer expired_timer(const state::PosixTimer& timer, std::uint64_t since_asked_ns) {
  const bool since = timer.left_ns() <= since_asked_ns;
  const std::uint64_t left = since ? timer.interval_ns() : 0;
  return {timer.interval_ns() == 0 ? 0 : timer.left_ns() + left,
          timer.interval_ns(),
          timer.value(),
          timer.id(),
          timer.clock(),
          timer.signal(),
          timer.notify(),
          timer.thread(),
          true};
}

bool is_pending(const state::ProcessT& process, int signal) {
  const auto& pending = process.signals->pending;
  for (std::size_t at = 0; at + sizeof(siginfo_t) <= pending.size(); at += sizeof(siginfo_t)) {
    siginfo_t info;
    std::memcpy(&info, pending.data() + at, sizeof info);
    if (info.si_signo == signal) return true;
  }
  return (process.signals->pending_bare >> (signal - 1) & 1) != 0;
}

/// A kernel sigevent.
struct Event {
  std::uint64_t value = 0;
  std::int32_t signal = 0;
  std::int32_t notify = SIGEV_NONE;
  std::int32_t thread = 0;
  std::int32_t pad[11] = {};
};
static_assert(sizeof(Event) == 64);

Event event_of(const state::PosixTimer& timer) {
  return {.value = timer.value(),
          .signal = timer.signal(),
          .notify = timer.notify(),
          .thread = timer.thread()};
}

void make_timer(CallList& list, int clock, const Event& event, int id) {
  list.call("make a POSIX timer", SYS_timer_create,
            {static_cast<std::uint64_t>(clock), list.put_value(event), list.put_value(id)});
}

constexpr int kMostCounted = 1 << 20;  // two calls for each id

constexpr std::size_t kTimerDataBytes = sizeof(Event) + 32;

/// Before Linux 6.15 the ids of a process are given out in order, each once: so the ones between
/// are made, too, and deleted.
void make_timers_in_order(const std::vector<state::PosixTimer>& timers, CallStream& calls) {
  int next = 0;
  for (const state::PosixTimer& timer : timers) {
    for (; next < timer.id(); ++next) {
      CallList& list = calls.room(2, kTimerDataBytes);
      make_timer(list, CLOCK_MONOTONIC, Event{}, next);
      list.call("delete a POSIX timer", SYS_timer_delete, {static_cast<std::uint64_t>(next)});
    }
    make_timer(calls.room(1, kTimerDataBytes), timer.clock(), event_of(timer), next++);
  }
}

/// When the timer should have expired last, on its own clock: then it expires at once, and has
/// missed nothing else.
std::uint64_t last_expiry_ns(const state::PosixTimer& timer, std::uint64_t now_ns) {
  const std::uint64_t next = now_ns + timer.left_ns();
  return timer.interval_ns() == 0 || next <= timer.interval_ns() ? 1 : next - timer.interval_ns();
}

/// What the process sees now, by clock.
std::map<int, std::uint64_t> read_clocks(const std::vector<state::PosixTimer>& timers,
                                         CallStream& calls) {
  std::map<int, std::uint64_t> now;
  for (const state::PosixTimer& timer : timers)
    if (timer.expired()) now[timer.clock()] = 0;
  if (now.empty()) return now;
  calls.run();
  CallList& list = calls.room(now.size(), now.size() * 32);
  for (auto& [clock, at] : now) {
    at = list.reserve(sizeof(::timespec));
    list.call("read a clock", SYS_clock_gettime, {static_cast<std::uint64_t>(clock), at});
  }
  calls.run_and_read([&](const CallList& answers) {
    for (auto& [clock, at] : now) at = as_ns(answers.value<::timespec>(at));
  });
  return now;
}

void start_interval_timer(const state::ProcessT& process, std::size_t which, CallStream& calls) {
  const state::IntervalTimer& timer = process.time->interval_timers[which];
  std::uint64_t left = timer.left_us();
  // A periodic ITIMER_REAL stands still until its signal is taken.  It gets there by expiring once
  // more: of this signal the kernel keeps but one.
  if (left == 0 && timer.interval_us() != 0 && which == ITIMER_REAL && is_pending(process, SIGALRM))
    left = 1;
  if (left == 0) return;
  const ::itimerval wanted{.it_interval = as_timeval(timer.interval_us()),
                           .it_value = as_timeval(left)};
  CallList& list = calls.room(1, sizeof wanted);
  list.call("start an interval timer", SYS_setitimer, {which, list.put_value(wanted), 0});
}

}  // namespace

TimerQuestions::TimerQuestions(CallList& list, std::vector<sys::ListedTimer> timers)
    : timers_(std::move(timers)),
      clocks_(list.reserve(2 * sizeof(::timespec))),
      intervals_(list.reserve(kIntervalTimers * sizeof(::itimerval))),
      left_(list.reserve(timers_.size() * sizeof(::itimerspec))) {
  list.call("read CLOCK_MONOTONIC", SYS_clock_gettime, {CLOCK_MONOTONIC, clocks_});
  list.call("read CLOCK_BOOTTIME", SYS_clock_gettime,
            {CLOCK_BOOTTIME, clocks_ + sizeof(::timespec)});
  for (std::uint64_t which = 0; which < kIntervalTimers; ++which)
    list.call("read an interval timer", SYS_getitimer,
              {which, intervals_ + which * sizeof(::itimerval)});
  for (std::size_t i = 0; i < timers_.size(); ++i)
    list.call("read a POSIX timer", SYS_timer_gettime,
              {static_cast<std::uint64_t>(timers_[i].id), left_ + i * sizeof(::itimerspec)});
}

std::unique_ptr<state::TimeT> TimerQuestions::answers(const CallList& list,
                                                      Capture& capture) const {
  auto time = std::make_unique<state::TimeT>();
  time->monotonic_ns = static_cast<std::int64_t>(as_ns(list.value<::timespec>(clocks_)));
  time->boottime_ns =
      static_cast<std::int64_t>(as_ns(list.value<::timespec>(clocks_ + sizeof(::timespec))));
  for (std::size_t i = 0; i < kIntervalTimers; ++i) {
    const auto timer = list.value<::itimerval>(intervals_ + i * sizeof(::itimerval));
    time->interval_timers.emplace_back(as_us(timer.it_value), as_us(timer.it_interval));
  }
  for (std::size_t i = 0; i < timers_.size(); ++i) {
    const sys::ListedTimer& timer = timers_[i];
    refuse_clock(capture, timer);
    const auto left = list.value<::itimerspec>(left_ + i * sizeof(::itimerspec));
    const pid_t thread =
        (timer.notify & SIGEV_THREAD_ID) != 0 ? inner_tid(capture, timer.target) : 0;
    time->timers.emplace_back(as_ns(left.it_value), as_ns(left.it_interval), timer.value, timer.id,
                              timer.clock, timer.signal, timer.notify, thread, false);
    if ((timer.notify & SIGEV_THREAD_ID) != 0 && thread == 0)
      capture.refusals.add(
          "POSIX timer {}: signals a thread that has ended: such a timer cannot be made again",
          timer.id);
  }
  std::ranges::sort(time->timers, {}, &state::PosixTimer::id);
  return time;
}

void take_signals_of_timers(const Capture& capture, std::chrono::nanoseconds since_asked,
                            state::ProcessT& process) {
  const auto since_asked_ns = static_cast<std::uint64_t>(since_asked.count());
  for (state::PosixTimer& timer : process.time->timers) {
    // One that counts CPU time cannot be told to have expired: its signal stays as it is.
    if (is_cpu_clock(timer.clock())) continue;
    bool expired = take_signal(process.signals->pending, 0, timer);
    for (std::size_t i = 0; i < process.threads.size() && !expired; ++i) {
      // A signal on its way into the thread has left its timer behind.
      const bool on_its_way = capture.process.threads()[i].suspended_signal().has_value();
      expired = take_signal(process.threads[i]->pending, on_its_way ? sizeof(siginfo_t) : 0, timer);
    }
    if (expired) timer = expired_timer(timer, since_asked_ns);
  }
  state::IntervalTimer& real = process.time->interval_timers[ITIMER_REAL];
  if (real.left_us() * 1000 <= since_asked_ns && is_pending(process, SIGALRM))
    real = {0, real.interval_us()};
}

bool has_running_timers(const state::ProcessT& process) {
  if (!process.time) return false;
  return std::ranges::any_of(
             process.time->interval_timers,
             [](const auto& timer) { return timer.left_us() != 0 || timer.interval_us() != 0; }) ||
         std::ranges::any_of(process.time->timers, [](const auto& timer) {
           return timer.left_ns() != 0 || timer.expired();
         });
}

void rebuild_timers(const state::ProcessT& process, CallStream& calls) {
  if (!process.time || process.time->timers.empty()) return;
  const std::vector<state::PosixTimer>& timers = process.time->timers;
  calls.run();
  const std::size_t asked = calls.room(1, 0).try_call(SYS_prctl, {kRestoreIds, 1, 0, 0, 0});
  if (calls.run_for(asked) != 0) return make_timers_in_order(timers, calls);
  for (const state::PosixTimer& timer : timers)
    make_timer(calls.room(1, kTimerDataBytes), timer.clock(), event_of(timer), timer.id());
  calls.call("let the kernel choose the ids of timers", SYS_prctl, {kRestoreIds, 0, 0, 0, 0});
}

void start_timers(const state::ProcessT& process, CallStream& calls) {
  const auto now = read_clocks(process.time->timers, calls);
  for (const state::PosixTimer& timer : process.time->timers) {
    if (timer.left_ns() == 0 && !timer.expired()) continue;
    ::itimerspec wanted{.it_interval = as_timespec(timer.interval_ns()),
                        .it_value = as_timespec(timer.left_ns())};
    if (timer.expired())
      wanted.it_value = as_timespec(last_expiry_ns(timer, now.at(timer.clock())));
    CallList& list = calls.room(1, sizeof wanted);
    list.call("start a POSIX timer", SYS_timer_settime,
              {static_cast<std::uint64_t>(timer.id()), timer.expired() ? TIMER_ABSTIME : 0U,
               list.put_value(wanted), 0});
  }
  for (std::size_t i = 0; i < process.time->interval_timers.size(); ++i)
    start_interval_timer(process, i, calls);
}

void await_expired_timers(const state::ProcessT& process, std::span<const pid_t> threads) {
  // An interrupt of a virtual machine whose host is busy; more would be no reason to stay away.
  constexpr std::chrono::milliseconds kPatience{100};
  const auto raised = [&](const state::PosixTimer& timer) {
    const auto sent = [&](const siginfo_t& info) {
      return info.si_code == SI_TIMER && info.si_timerid == timer.id();
    };
    if ((timer.notify() & SIGEV_THREAD_ID) == 0)
      return std::ranges::any_of(sys::pending_signals(threads.front(), true), sent);
    const auto at = std::ranges::find(process.threads, timer.thread(),
                                      [](const auto& thread) { return thread->tid; });
    const auto index = static_cast<std::size_t>(at - process.threads.begin());
    return std::ranges::any_of(sys::pending_signals(threads[index], false), sent);
  };
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (const state::PosixTimer& timer : process.time->timers)
    while (timer.expired() && !raised(timer) && std::chrono::steady_clock::now() < deadline)
      sys::yield();
}

ClockOffsets clock_offsets(const state::ProcessT& process) {
  if (!process.time) return {};
  const auto behind = [](int clock, std::int64_t then_ns) {
    return std::max<std::int64_t>(0, then_ns - sys::clock_ns(clock));
  };
  return {.monotonic_ns = behind(CLOCK_MONOTONIC, process.time->monotonic_ns),
          .boottime_ns = behind(CLOCK_BOOTTIME, process.time->boottime_ns)};
}

void refuse_lacking_clocks(const state::ProcessT& process, const sys::Status& own,
                           Refusals& refusals) {
  if (process.time && !process.time->timers.empty() &&
      process.time->timers.back().id() > kMostCounted && !sys::can_choose_timer_ids())
    refusals.add("POSIX timer {}: this kernel cannot give it its id: Linux 6.15 is needed",
                 process.time->timers.back().id());
  const ClockOffsets forward = clock_offsets(process);
  if (!forward.needed()) return;
  if ((own.number("CapEff", 16) >> CAP_SYS_ADMIN & 1) == 0)
    refusals.add(
        "clock: CLOCK_MONOTONIC of the process is {} s ahead of this machine's, so it needs a time "
        "namespace: CAP_SYS_ADMIN is needed",
        forward.monotonic_ns / sys::kSecond);
}

}  // namespace icecore
