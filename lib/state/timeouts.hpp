// SPDX-License-Identifier: Apache-2.0
#pragma once

// Time left in system calls that sleep with a relative timeout.
//
// Two kinds.  nanosleep, poll and futex keep their end in a restart block that nobody can read or
// write: after a mere freeze they go on by themselves.  epoll_wait, sigtimedwait and others begin
// anew, with the whole timeout.  What can be known of both:
//  * nanosleep and clock_nanosleep write the time left where the caller asked for it;
//  * for the others it follows from when the thread fell asleep, which the scheduler tells as long
//    as nobody has woken the thread: so it is observed before the freeze;
//  * a call that was interrupted before sleeps since then only.  Its timer, which the kernel lists
//    without its owner, is among those that a freeze takes away: the latest of them that the call
//    can have is never too early.
//  * a call that a freeze has interrupted before goes on as restart_syscall(2), with the arguments
//    of the original: which call that was shows in the kernel function where the thread sleeps.
// What can be set:
//  * a thread that makes the call again and is interrupted in it gets a restart block of its own:
//    rebuild_timeout();
//  * epoll_wait has its timeout in a register, which then holds the time left, as the timeval of
//    select does: shorten_timeouts();
//  * the others read a timespec, or the timeout of their socket, when they begin, which may be
//  another one just then: sleep_again()
//    in a process that dies with us, SleepObserver::let_sleep_on() in one that must not keep it,
//    whatever becomes of us.

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "sys/procfs.hpp"
#include "sys/remote_memory.hpp"
#include "sys/testament.hpp"
#include "tracee/frozen_process.hpp"
#include "tracee/remote_syscalls.hpp"
#include "tracee/tracee.hpp"

namespace icecore {

/// When the sleeping threads of a process fell asleep, observed while it runs.
class SleepObserver {
 public:
  explicit SleepObserver(pid_t pid);

  /// The system call that a frozen thread is in, seen through restart_syscall.  -1 when it is not
  /// known (the thread fell asleep only after it was observed).
  long call_number(const Tracee& thread) const;

  /// How much of its timeout a frozen thread has left; nothing when it is in no call that needs it.
  /// When it cannot be known, the whole timeout.
  std::optional<std::chrono::nanoseconds> time_left(const Tracee& thread) const;

  /// To be called when the process has been frozen, before any of its threads runs for us.
  void process_is_frozen(FrozenProcess& process);

  /// Lets calls whose timeout is in a register end when they would have, should the process run on
  /// from here.
  void shorten_timeouts(FrozenProcess& process) const;

  /// Whether let_sleep_on() has anything to do.
  bool needs_to_sleep_on(FrozenProcess& process) const;

  /// Lets the threads whose calls begin anew, with a timeout in memory, fall asleep in them with
  /// the time that is left.  They run on; nobody else does, and the memory is as it was.
  ///
  /// The kernel still traces them: they are let go of when the tracing thread ends, which should be
  /// soon, since a signal stops them until then.
  void let_sleep_on(FrozenProcess& process) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Sleep {
    sys::SleepingCall call;
    Clock::time_point since;
    std::uint64_t switches;
  };
  std::optional<Clock::time_point> end_of(const Tracee& thread, const sys::Fd& process,
                                          const sys::RemoteMemory& memory) const;

  std::map<pid_t, Sleep> sleeps_;
  std::map<pid_t, Clock::time_point> ends_;  // of the calls of a frozen process
  Clock::time_point frozen_at_{};
  std::vector<sys::WakingTimer> timers_;  // later: those that the freeze has taken away
};

/// Where a thread can make a system call and hold what it needs meanwhile.
struct TimeoutScratch {
  std::uint64_t syscall_instruction;
  std::uint64_t timespec;  // 16 bytes that the caller of rebuild_timeout has set to the time left
};

/// Lets the stopped thread sleep again in the call of `registers`, with `left` as its timeout, and
/// interrupts it: what it then runs on with is returned (the same registers, or those behind the
/// call when it had nothing to wait for).
sys::Registers rebuild_timeout(Tracee& thread, const sys::Registers& registers,
                               std::chrono::nanoseconds left, const TimeoutScratch& scratch);

/// True for a call that begins anew and reads its timeout then: from memory, or from its socket.
bool reads_timeout_anew(const sys::Registers& registers);

/// What such a call reads, for as long as it takes another value.
class BorrowedTimeout {
 public:
  /// `registers` of a thread of `process`.
  BorrowedTimeout(const sys::Registers& registers, const sys::Fd& process,
                  const sys::RemoteMemory& memory);

  void shorten(std::chrono::nanoseconds left) const;
  void put_back() const;
  /// The same as a system call; it refers to this object.
  sys::LastCall putting_back() const;

 private:
  const sys::RemoteMemory& memory_;
  std::uint64_t address_ = 0;  // of a timespec
  sys::Fd socket_;             // or with a timeval
  int option_ = 0;
  std::array<std::int64_t, 2> before_{};
};

/// Lets a stopped thread, about to begin such a call anew, fall asleep in it with `left` as its
/// timeout.  When it sleeps, it is let go of when the tracing thread ends (as when it is dead).
/// Otherwise it is stopped, as after `Tracee::suspended_signal()` or behind the call.
void sleep_again(Tracee& thread, const BorrowedTimeout& timeout, std::chrono::nanoseconds left);

}  // namespace icecore
