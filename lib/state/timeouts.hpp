// SPDX-License-Identifier: Apache-2.0
#pragma once

// Time left in system calls that sleep with a relative timeout.
//
// The kernel keeps their end in a restart block that nobody can read or write.  What can be known:
//  * nanosleep and clock_nanosleep write the time left where the caller asked for it;
//  * for the others it follows from when the thread fell asleep, which the scheduler tells as long
//    as nobody has woken the thread: so it is observed before the freeze;
//  * a call that a freeze has interrupted before goes on as restart_syscall(2), with the arguments
//  of
//    the original: which call that was shows in the kernel function where the thread sleeps.  Its
//    time is then counted from that freeze, since nothing tells when it began.
// What can be set: a thread that makes the call again and is interrupted in it gets a restart block
// of its own.  That is how rebuild_timeout() works; no register of the thread differs afterwards.

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>

#include "sys/procfs.hpp"
#include "sys/remote_memory.hpp"
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
  std::optional<std::chrono::nanoseconds> time_left(const Tracee& thread,
                                                    const sys::RemoteMemory& memory) const;

 private:
  struct Sleep {
    sys::SleepingCall call;
    std::chrono::steady_clock::time_point since;
    std::uint64_t switches;
  };
  std::map<pid_t, Sleep> sleeps_;
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

}  // namespace icecore
