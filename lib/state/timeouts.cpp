// SPDX-License-Identifier: Apache-2.0
#include "state/timeouts.hpp"

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <deque>

#include "icecore/error.hpp"
#include "memory/worker.hpp"
#include "sys/check.hpp"
#include "sys/process.hpp"
#include "sys/socket_timeout.hpp"

namespace icecore {
namespace {

using std::chrono::nanoseconds;

constexpr long kRestartNoHand = -514;
constexpr long kRestartBlock = -516;

struct Timespec {
  std::int64_t seconds;
  std::int64_t nanoseconds;
};

Timespec to_timespec(nanoseconds time) {
  return {.seconds = time.count() / 1'000'000'000, .nanoseconds = time.count() % 1'000'000'000};
}

/// Where a call has its relative timeout.
struct TimeoutPlace {
  std::uint64_t wanted = 0;               // address of a timespec, or 0
  std::uint64_t left = 0;                 // address where the kernel writes the rest, or 0
  std::optional<nanoseconds> value = {};  // poll, epoll_wait: in the call itself
  bool begins_anew = false;               // interrupted, it is made again from its arguments
  int socket_option = 0;  // SO_…TIMEO of the descriptor that is its first argument
};

std::optional<TimeoutPlace> in_call(std::uint64_t argument, bool begins_anew) {
  const auto milliseconds = static_cast<std::int32_t>(argument);
  if (milliseconds < 0) return std::nullopt;
  return TimeoutPlace{.value = std::chrono::milliseconds{milliseconds}, .begins_anew = begins_anew};
}

std::optional<TimeoutPlace> anew_from(std::uint64_t address) {
  if (address == 0) return std::nullopt;
  return TimeoutPlace{.wanted = address, .begins_anew = true};
}

/// Nothing for calls without a relative timeout (also those that wait forever).
std::optional<TimeoutPlace> timeout_of(const sys::SleepingCall& call) {
  const auto& a = call.arguments;
  switch (call.number) {
    case SYS_nanosleep:
      return TimeoutPlace{.wanted = a[0], .left = a[1]};
    case SYS_clock_nanosleep:
      if ((a[1] & TIMER_ABSTIME) != 0) return std::nullopt;
      return TimeoutPlace{.wanted = a[2], .left = a[3]};
    case SYS_poll:
      return in_call(a[2], false);
    case SYS_futex: {
      const auto operation = static_cast<int>(a[1]) & FUTEX_CMD_MASK;
      if (operation != FUTEX_WAIT || a[3] == 0) return std::nullopt;
      return TimeoutPlace{.wanted = a[3]};
    }
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return in_call(a[3], true);
    case SYS_rt_sigtimedwait:
      return anew_from(a[2]);
    case SYS_epoll_pwait2:
    case SYS_semtimedop:
      return anew_from(a[3]);
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_accept:
    case SYS_accept4:
      return TimeoutPlace{.begins_anew = true, .socket_option = SO_RCVTIMEO};
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_connect:
      return TimeoutPlace{.begins_anew = true, .socket_option = SO_SNDTIMEO};
    case SYS_io_getevents:
    case SYS_io_pgetevents:
      return anew_from(a[4]);
    default:
      return std::nullopt;
  }
}

sys::SleepingCall call_in(const sys::Registers& r) {
  return {.number = static_cast<long>(r.orig_rax),
          .arguments = {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}};
}

std::optional<nanoseconds> read_timespec(std::uint64_t address, const sys::RemoteMemory& memory) {
  Timespec time{};
  constexpr std::int64_t kForEver = std::int64_t{3600} * 24 * 365 * 50;
  if (!memory.try_read(address, std::as_writable_bytes(std::span{&time, 1}))) return std::nullopt;
  if (time.seconds < 0 || time.seconds > kForEver) return std::nullopt;
  return std::chrono::seconds{time.seconds} + nanoseconds{time.nanoseconds};
}

/// Nothing for another descriptor than a socket, and for one that waits forever.
std::optional<nanoseconds> socket_timeout(const sys::Fd& process, const sys::SleepingCall& call,
                                          int option) {
  const auto timeout = sys::socket_timeout(process, static_cast<int>(call.arguments[0]), option);
  if (!timeout || *timeout == nanoseconds{0}) return std::nullopt;
  return timeout;
}

/// The call that goes on as restart_syscall, from where in the kernel it sleeps.
long restarted_call(const sys::SleepingCall& call, const std::string& function) {
  constexpr std::uint64_t kClocks = 16;  // clock ids are small numbers, an address is not
  if (function.find("poll") != std::string::npos) return SYS_poll;
  if (function.find("futex") != std::string::npos) return SYS_futex;
  return call.arguments[0] < kClocks ? SYS_clock_nanosleep : SYS_nanosleep;
}

bool has_timer(const std::vector<sys::WakingTimer>& timers, const sys::WakingTimer& wanted) {
  return std::ranges::any_of(timers, [&](const auto& timer) { return timer.id == wanted.id; });
}

/// All of them: one reading of the list may miss one.
std::vector<sys::WakingTimer> all_waking_timers() {
  constexpr int kReadings = 3;
  std::vector<sys::WakingTimer> timers;
  for (int i = 0; i < kReadings; ++i)
    for (const auto& timer : sys::waking_timers())
      if (!has_timer(timers, timer)) timers.push_back(timer);
  return timers;
}

}  // namespace

SleepObserver::SleepObserver(pid_t pid) {
  bool interrupted_before = false;
  const sys::Fd process = sys::open_process(pid);
  const auto threads = sys::list_threads(pid);
  auto calls = for_each_together<std::optional<sys::SleepingCall>>(
      threads.size(), [&](std::size_t i) { return sys::sleeping_call(threads[i]); });
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const pid_t tid = threads[i];
    auto& call = calls[i];
    if (!call) continue;
    const bool restarted = call->number == SYS_restart_syscall;
    if (restarted) call->number = restarted_call(*call, sys::sleeping_function(tid));
    const auto place = timeout_of(*call);
    if (!restarted && !place) continue;
    if (place && place->socket_option != 0 && !socket_timeout(process, *call, place->socket_option))
      continue;
    const auto scheduler = sys::scheduler_view(tid);
    const auto now = scheduler ? sys::scheduler_clock_ns(scheduler->cpu) : std::nullopt;
    if (!now) continue;
    const nanoseconds asleep{std::max<std::int64_t>(0, *now - scheduler->last_ran_ns)};
    sleeps_[tid] = {*call, Clock::now() - asleep, scheduler->switches};
    // Of a timespec nobody can tell whether the kernel has read the same one.
    if (place && place->left == 0 && (restarted || (place->begins_anew && place->wanted != 0)))
      interrupted_before = true;
  }
  if (interrupted_before) timers_ = all_waking_timers();
}

void SleepObserver::process_is_frozen(FrozenProcess& process) {
  frozen_at_ = Clock::now();
  if (!timers_.empty()) {
    const auto still = all_waking_timers();
    std::erase_if(timers_, [&](const sys::WakingTimer& timer) { return has_timer(still, timer); });
  }
  const sys::RemoteMemory memory{process.pid()};
  const sys::Fd pidfd = sys::open_process(process.pid());
  for (const Tracee& thread : process.threads())
    if (const auto end = end_of(thread, pidfd, memory)) ends_[thread.tid()] = *end;
  shorten_timeouts(process);
}

long SleepObserver::call_number(const Tracee& thread) const {
  const auto number = static_cast<long>(thread.registers().orig_rax);
  if (number != SYS_restart_syscall) return number;
  const auto sleep = sleeps_.find(thread.tid());
  return sleep == sleeps_.end() ? -1 : sleep->second.call.number;
}

std::optional<SleepObserver::Clock::time_point> SleepObserver::end_of(
    const Tracee& thread, const sys::Fd& process, const sys::RemoteMemory& memory) const {
  // Its end as the scheduler sees it may lie so much before that of the timer.
  constexpr std::chrono::milliseconds kTolerance{1};
  sys::SleepingCall call = call_in(thread.registers());
  call.number = call_number(thread);
  const auto place = timeout_of(call);
  const auto result = static_cast<long>(thread.registers().rax);
  if (!place || result != (place->begins_anew ? kRestartNoHand : kRestartBlock))
    return std::nullopt;
  const auto now = Clock::now();
  if (place->left != 0) {
    const auto left = read_timespec(place->left, memory);
    return left ? std::optional{now + *left} : std::nullopt;
  }
  const auto wanted = place->value ? place->value
                      : place->socket_option != 0
                          ? socket_timeout(process, call, place->socket_option)
                          : read_timespec(place->wanted, memory);
  if (!wanted) return std::nullopt;

  const auto sleep = sleeps_.find(thread.tid());
  if (sleep == sleeps_.end() || sleep->second.call.number != call.number ||
      sleep->second.call.arguments != call.arguments)
    return now + *wanted;
  // One switch is the one that stopped it.  More: it has woken and slept again since we looked.
  const auto scheduler = sys::scheduler_view(thread.tid());
  if (!scheduler || scheduler->switches > sleep->second.switches + 1) return now + *wanted;

  const auto latest = sleep->second.since + *wanted;
  if (place->socket_option != 0) return latest;  // its timer is in no list
  std::optional<Clock::time_point> end;
  for (const sys::WakingTimer& timer : timers_)
    if (timer.end <= latest + kTolerance && (!end || timer.end > *end)) end = timer.end;
  return end.value_or(latest);
}

std::optional<nanoseconds> SleepObserver::time_left(const Tracee& thread) const {
  const auto end = ends_.find(thread.tid());
  if (end == ends_.end()) return std::nullopt;
  return std::max(nanoseconds{end->second - frozen_at_}, nanoseconds{0});
}

bool SleepObserver::needs_to_sleep_on(FrozenProcess& process) const {
  return std::ranges::any_of(process.threads(), [&](const Tracee& thread) {
    if (!ends_.contains(thread.tid())) return false;
    const auto place = timeout_of(call_in(thread.registers()));
    return place && place->begins_anew && !place->value;
  });
}

void SleepObserver::shorten_timeouts(FrozenProcess& process) const {
  for (Tracee& thread : process.threads()) {
    sys::Registers registers = thread.registers();
    const auto number = static_cast<long>(registers.orig_rax);
    const auto end = ends_.find(thread.tid());
    if ((number != SYS_epoll_wait && number != SYS_epoll_pwait) || end == ends_.end()) continue;
    // Not 0: whoever uses the register again would never sleep.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end->second - Clock::now());
    registers.r10 = static_cast<std::uint64_t>(std::max<std::int64_t>(left.count(), 1));
    thread.set_registers(registers);
    thread.put_back();
  }
}

sys::Registers rebuild_timeout(Tracee& thread, const sys::Registers& registers, nanoseconds left,
                               const TimeoutScratch& scratch) {
  sys::Registers again = registers;
  again.rip = scratch.syscall_instruction;
  again.rax = registers.orig_rax;
  again.orig_rax = ~0ULL;
  switch (static_cast<long>(registers.orig_rax)) {
    case SYS_nanosleep:
      again.rdi = scratch.timespec;
      break;
    case SYS_clock_nanosleep:
      again.rdx = scratch.timespec;
      break;
    case SYS_poll:
      again.rdx =
          static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::milliseconds>(left).count());
      break;
    case SYS_futex:
      again.r10 = scratch.timespec;
      break;
    default:
      return registers;
  }
  thread.disturb(again, ~sys::SignalMask{0});

  // Stopped at the entry, it is told to stop again: so the call ends as soon as it would sleep.
  const auto next = [&] {
    const sys::Stop stop = sys::wait_stop(thread.tid());
    if (stop.kind == sys::Stop::Kind::exited)
      throw Error{Errc::internal, "a thread ended while it was being restored"};
    return stop.kind;
  };
  sys::resume_to_syscall(thread.tid());
  while (next() != sys::Stop::Kind::syscall) sys::resume_to_syscall(thread.tid());
  sys::interrupt(thread.tid());
  sys::resume(thread.tid());
  while (next() != sys::Stop::Kind::trap) sys::resume(thread.tid());

  sys::Registers after = registers;
  after.rax = sys::registers(thread.tid()).rax;
  if (static_cast<long>(after.rax) != kRestartBlock) after.orig_rax = ~0ULL;
  return after;
}

bool reads_timeout_anew(const sys::Registers& registers) {
  if (static_cast<long>(registers.rax) != kRestartNoHand) return false;
  const auto place = timeout_of(call_in(registers));
  return place && place->begins_anew && !place->value;
}

BorrowedTimeout::BorrowedTimeout(const sys::Registers& registers, const sys::Fd& process,
                                 const sys::RemoteMemory& memory)
    : memory_(memory) {
  const sys::SleepingCall call = call_in(registers);
  const auto place = timeout_of(call);
  ICECORE_CHECK(place);
  if (place->socket_option == 0) {
    address_ = place->wanted;
    memory.read(address_, std::as_writable_bytes(std::span{before_}));
    return;
  }
  // Another descriptor may have taken its place, at a restore: it has no timeout.
  const auto number = static_cast<int>(call.arguments[0]);
  option_ = place->socket_option;
  const auto before = sys::socket_timeout(process, number, option_);
  if (!before) return;
  socket_ = sys::copy_descriptor(process, number);
  before_ = {before->count() / 1'000'000'000, before->count() % 1'000'000'000 / 1'000};
}

void BorrowedTimeout::shorten(nanoseconds left) const {
  if (socket_) {
    // 0 would be for ever.
    const auto least = std::max<nanoseconds>(left, std::chrono::microseconds{1});
    return sys::set_socket_timeout(socket_, option_, least);
  }
  if (address_ == 0) return;
  const Timespec shortened = to_timespec(left);
  memory_.write(address_, std::as_bytes(std::span{&shortened, 1}));
}

void BorrowedTimeout::put_back() const {
  if (socket_)
    sys::set_socket_timeout(
        socket_, option_, std::chrono::seconds{before_[0]} + std::chrono::microseconds{before_[1]});
  else if (address_ != 0)
    memory_.write(address_, std::as_bytes(std::span{before_}));
}

sys::LastCall BorrowedTimeout::putting_back() const {
  const auto value = reinterpret_cast<std::uint64_t>(before_.data());
  if (socket_)
    return {SYS_setsockopt,
            {static_cast<std::uint64_t>(socket_.get()), SOL_SOCKET,
             static_cast<std::uint64_t>(option_), value, sizeof before_}};
  return {SYS_pwrite64,
          {static_cast<std::uint64_t>(memory_.file().get()), value, sizeof before_, address_}};
}

void sleep_again(Tracee& thread, const BorrowedTimeout& timeout, nanoseconds left) {
  const pid_t tid = thread.tid();
  timeout.shorten(left);
  const auto stopped = [&](const sys::Stop& stop) {
    if (stop.kind == sys::Stop::Kind::exited) return thread.forget();  // and all of its memory
    if (stop.kind == sys::Stop::Kind::signal) thread.suspend_signal(sys::stop_siginfo(tid));
    timeout.put_back();
  };

  sys::resume_to_syscall(tid);
  const sys::Stop entry = sys::wait_stop(tid);
  if (entry.kind != sys::Stop::Kind::syscall) return stopped(entry);
  sys::spare(tid);
  sys::resume_to_syscall(tid);
  for (;;) {
    if (const auto stop = sys::poll_stop(tid)) return stopped(*stop);
    const auto stat = sys::read_stat(tid);
    if (stat && stat->state == 'S') break;
    sys::yield();
  }
  thread.forget();
  timeout.put_back();
}

void SleepObserver::let_sleep_on(FrozenProcess& process) const {
  if (process.stopped()) return;  // none of its threads may run
  std::vector<Tracee*> sleepers;
  for (Tracee& thread : process.threads())
    if (ends_.contains(thread.tid()) && !thread.is_disturbed() && !thread.suspended_signal() &&
        reads_timeout_anew(thread.registers()))
      sleepers.push_back(&thread);
  if (sleepers.empty()) return;

  const sys::RemoteMemory memory{process.pid()};
  const sys::Fd pidfd = sys::open_process(process.pid());
  std::deque<BorrowedTimeout> timeouts;  // which the testament refers to
  std::vector<sys::LastCall> put_back;
  for (const Tracee* thread : sleepers) {
    timeouts.emplace_back(thread->registers(), pidfd, memory);
    put_back.push_back(timeouts.back().putting_back());
  }
  const sys::Testament testament{std::move(put_back)};
  for (std::size_t i = 0; i < sleepers.size(); ++i) {
    const auto left = ends_.at(sleepers[i]->tid()) - Clock::now();
    sleep_again(*sleepers[i], timeouts[i], std::max<nanoseconds>(left, nanoseconds{0}));
  }
}

}  // namespace icecore
