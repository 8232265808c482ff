// SPDX-License-Identifier: Apache-2.0
#include "state/timeouts.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>

#include "icecore/error.hpp"

namespace icecore {
namespace {

using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

constexpr long kRestartBlock = -516;

struct Timespec {
  std::int64_t seconds;
  std::int64_t nanoseconds;
};

/// Where a call has its relative timeout.
struct TimeoutPlace {
  std::uint64_t wanted = 0;               // address of a timespec, or 0
  std::uint64_t left = 0;                 // address where the kernel writes the rest, or 0
  std::optional<nanoseconds> value = {};  // poll: in the call itself
};

/// Nothing for calls without a relative timeout (also those that wait forever).
std::optional<TimeoutPlace> timeout_of(const sys::SleepingCall& call) {
  const auto& a = call.arguments;
  switch (call.number) {
    case SYS_nanosleep:
      return TimeoutPlace{.wanted = a[0], .left = a[1]};
    case SYS_clock_nanosleep:
      if ((a[1] & TIMER_ABSTIME) != 0) return std::nullopt;
      return TimeoutPlace{.wanted = a[2], .left = a[3]};
    case SYS_poll: {
      const auto milliseconds = static_cast<std::int32_t>(a[2]);
      if (milliseconds < 0) return std::nullopt;
      return TimeoutPlace{.value = std::chrono::milliseconds{milliseconds}};
    }
    case SYS_futex: {
      const auto operation = static_cast<int>(a[1]) & FUTEX_CMD_MASK;
      if (operation != FUTEX_WAIT || a[3] == 0) return std::nullopt;
      return TimeoutPlace{.wanted = a[3]};
    }
    default:
      return std::nullopt;
  }
}

sys::SleepingCall call_in(const sys::Registers& r) {
  return {.number = static_cast<long>(r.orig_rax),
          .arguments = {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}};
}

nanoseconds read_timespec(std::uint64_t address, const sys::RemoteMemory& memory) {
  const auto time = memory.read_value<Timespec>(address);
  return std::chrono::seconds{time.seconds} + nanoseconds{time.nanoseconds};
}

/// The call that goes on as restart_syscall, from where in the kernel it sleeps.
long restarted_call(const sys::SleepingCall& call, const std::string& function) {
  constexpr std::uint64_t kClocks = 16;  // clock ids are small numbers, an address is not
  if (function.find("poll") != std::string::npos) return SYS_poll;
  if (function.find("futex") != std::string::npos) return SYS_futex;
  return call.arguments[0] < kClocks ? SYS_clock_nanosleep : SYS_nanosleep;
}

}  // namespace

SleepObserver::SleepObserver(pid_t pid) {
  for (const pid_t tid : sys::list_threads(pid)) {
    auto call = sys::sleeping_call(tid);
    if (!call) continue;
    const bool restarted = call->number == SYS_restart_syscall;
    if (restarted) call->number = restarted_call(*call, sys::sleeping_function(tid));
    if (!restarted && !timeout_of(*call)) continue;
    const auto scheduler = sys::scheduler_view(tid);
    const auto now = scheduler ? sys::scheduler_clock_ns(scheduler->cpu) : std::nullopt;
    if (!now) continue;
    const nanoseconds asleep{std::max<std::int64_t>(0, *now - scheduler->last_ran_ns)};
    sleeps_[tid] = {*call, Clock::now() - asleep, scheduler->switches};
  }
}

long SleepObserver::call_number(const Tracee& thread) const {
  const auto number = static_cast<long>(thread.registers().orig_rax);
  if (number != SYS_restart_syscall) return number;
  const auto sleep = sleeps_.find(thread.tid());
  return sleep == sleeps_.end() ? -1 : sleep->second.call.number;
}

std::optional<nanoseconds> SleepObserver::time_left(const Tracee& thread,
                                                    const sys::RemoteMemory& memory) const {
  if (static_cast<long>(thread.registers().rax) != kRestartBlock) return std::nullopt;
  sys::SleepingCall call = call_in(thread.registers());
  call.number = call_number(thread);
  const auto place = timeout_of(call);
  if (!place) return std::nullopt;
  if (place->left != 0) return read_timespec(place->left, memory);
  const nanoseconds wanted = place->value ? *place->value : read_timespec(place->wanted, memory);

  const auto sleep = sleeps_.find(thread.tid());
  if (sleep == sleeps_.end() || sleep->second.call.number != call.number ||
      sleep->second.call.arguments != call.arguments)
    return wanted;
  // One switch is the one that stopped it.  More: it has woken and slept again since we looked.
  const auto scheduler = sys::scheduler_view(thread.tid());
  if (!scheduler || scheduler->switches > sleep->second.switches + 1) return wanted;
  return std::clamp(wanted - (Clock::now() - sleep->second.since), nanoseconds{0}, wanted);
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

}  // namespace icecore
