// SPDX-License-Identifier: Apache-2.0
#pragma once

// Processes and their descriptors from outside: clone3(2), pidfd_open(2), pidfd_getfd(2), kcmp(2),
// kill(2), prlimit(2) and so on.
//
// Kernel facts relied on here:
//  * clone3 with set_tid needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the pid namespace; a tid
//    in use is EEXIST.  A tid counts as in use as long as it names a process group or a session,
//    and for a moment after that: kill(2) says ESRCH before the id is given back (release_task()
//    frees it last; seen in 6.18 right after a traced process with threads was killed).
//  * setns(CLONE_NEWPID) and clone's parent are of the calling *thread*: children made afterwards
//    by that thread live in the namespace and are still our children.
//  * setns(CLONE_NEWNS) wants a thread that shares its fs (cwd, umask) with no other.
//  * sched_setattr wants the utilization clamps only with their flags set; without
//  CONFIG_UCLAMP_TASK
//    sched_getattr gives 0 for both.  SCHED_DEADLINE wants a thread that may run on every CPU.
//  * flock(2) works on the files of /proc: whoever opens one while somebody else has it open gets
//    the same inode, unless through another mount of proc.
//  * kcmp orders open file descriptions by an obfuscated address: 0 equal, 1 less, 2 greater.

#include <signal.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sys/fd.hpp"

namespace icecore::sys {

/// Sends a signal.  False when there is no such process.
bool send_signal(pid_t pid, int signal);
bool send_signal(const Fd& pidfd, int signal);

/// Waits for a child to end and reaps it; its wait status.
int wait_child(pid_t pid);

/// Waits until the process has ended, whether or not it has been reaped.  False when `patience` is
/// over.
bool await_end(const Fd& pidfd, std::optional<std::chrono::milliseconds> patience = {});

/// Lets other threads have the CPU.
void yield() noexcept;

/// Lets others go before the calling thread, until its end.
void give_way() noexcept;
void pause_for(std::chrono::microseconds duration) noexcept;

/// Throws Errc::target_gone when there is no such process.
Fd open_process(pid_t pid);

/// A lock on a process, among those who may trace it, until it is closed or unlock()ed.  Without
/// descriptor when somebody else has it.  Throws Errc::target_gone when there is no such process.
Fd try_lock_process(pid_t pid);
/// Also where a child of ours has a copy of the descriptor.
void unlock(const Fd& lock) noexcept;
/// A child that has ended and is only reaped at the end of this.  Its end is no SIGCHLD, and only
/// who waits with __WALL finds it.
class EndedProcess {
 public:
  EndedProcess();
  EndedProcess(const EndedProcess&) = delete;
  EndedProcess& operator=(const EndedProcess&) = delete;
  ~EndedProcess();
  pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_;
};

/// A copy of descriptor `number` of another process: the same open file description.
Fd copy_descriptor(const Fd& pidfd, int number);

/// Orders the open file descriptions behind two descriptors of a process: <0, 0, >0.
int compare_descriptors(pid_t pid, int a, int b);

/// True when two threads have one table of descriptors, and one working directory and umask.
bool share_descriptors_and_folder(pid_t a, pid_t b);

struct ResourceLimit {
  std::uint64_t soft;
  std::uint64_t hard;
};
constexpr int kResourceLimits = 16;
ResourceLimit resource_limit(pid_t pid, int resource);
void set_resource_limit(pid_t pid, int resource, const ResourceLimit& limit);

/// CPUs that the thread may run on, 64 to a word.
std::vector<std::uint64_t> affinity(pid_t tid);
void set_affinity(pid_t tid, std::span<const std::uint64_t> mask);

/// sched_setattr(2).
struct Scheduling {
  std::uint32_t policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime_ns = 0, deadline_ns = 0, period_ns = 0;
  std::uint32_t utilization_min = 0, utilization_max = 0;

  bool operator==(const Scheduling&) const = default;
};
Scheduling scheduling(pid_t tid);
void set_scheduling(pid_t tid, const Scheduling& scheduling);

/// Whether the calling thread could be given such a policy.  It is as before afterwards.
bool may_schedule(const Scheduling& scheduling) noexcept;

/// ioprio_get(2) of one thread.
int io_priority(pid_t tid);
void set_io_priority(pid_t tid, int priority);

/// True when the thread shares its CPU with none but those that have its cookie (PR_SCHED_CORE).
bool has_core_cookie(pid_t tid) noexcept;

/// PR_GET_SPECULATION_CTRL of the calling thread; -1 where the machine has no such control.
long speculation_control(std::uint64_t kind) noexcept;

/// Whether this machine can deny a thread the CPUID instruction.
bool can_deny_cpuid() noexcept;

/// PR_GET_SECUREBITS of the calling thread.
std::uint32_t secure_bits();

/// For ourselves, as far as we may.
bool try_set_nice(int nice) noexcept;

/// Blocks every signal for the calling thread for as long as this lives.
class SignalsBlocked {
 public:
  SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked();

 private:
  sigset_t before_;
};

pid_t current_process() noexcept;
pid_t current_thread() noexcept;

/// The options with which waitid(2) fails with ECHILD if there is no child of any kind, of any
/// thread, and otherwise changes nothing.
extern const std::uint64_t kLookForChildren;

/// True when a process, process group or session of our pid namespace has this id.
bool pid_in_use(pid_t pid);

/// Throws Errc::permission when we have no right to trace the process.
void check_may_trace(pid_t pid);

/// The name and version of the running kernel.
std::string kernel_release();

}  // namespace icecore::sys
