// SPDX-License-Identifier: Apache-2.0
#pragma once

// proc(5), as icecore uses it, but for the lists of mappings (proc_maps.hpp, pagemap_scan.hpp).
//
// Kernel facts relied on here:
//  * A process that ends while one of its files is read gives ESRCH at the read, or an empty file.
//  * /proc/TID/… exists for every thread, although readdir of /proc lists leaders only.
//  * /proc/PID/timers (CONFIG_CHECKPOINT_RESTORE) names the target of a timer as the reader sees
//  it,
//    and a clock as the process gave it: CLOCK_THREAD_CPUTIME_ID is -2, whosever it is.
//  * Kernel threads carry PF_KTHREAD in the flags of stat.
//  * /proc/TID/sched (CONFIG_SCHED_DEBUG) shows when the thread last ran; that moves when it is
//  woken,
//    as by a freeze.  The clock is that of the CPU on which it ran: those of two CPUs of a virtual
//    machine can be seconds apart, since they stand still while the host runs something else.
//  * /proc/timer_list (root only; 0.07 ms) shows every timer by a hash of its address, not by its
//    owner.  Whoever sleeps has one that fires "hrtimer_wakeup".  A timer that is taken out of the
//    list while it is printed can hide the next one.

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sys/fd.hpp"

namespace icecore::sys {

/// The whole of a file that has no size, such as those of /proc.  Throws when it cannot be read.
std::string read_file(const std::string& path);

/// Shows `take` each line of such a file without its end, as it is read: what the kernel says of a
/// large process fills megabytes.  Throws when it cannot be read.
void for_each_line(const std::string& path, const std::function<void(std::string_view)>& take);

/// The whole of it; nothing when the file or its process does not exist.
std::optional<std::string> try_read_file(const std::string& path);

/// The same; empty when it cannot be read, whatever the reason.
std::string readable_text(const std::string& path);

/// A file of /proc/TID that the kernel makes in one go, such as "status" or "comm": without the
/// second read that sees nothing but the end.  Not for lists ("maps", "children").
std::string read_process_file(pid_t tid, std::string_view name);
std::optional<std::string> try_read_process_file(pid_t tid, std::string_view name);

/// The file as far as the end of the first line that begins with `line_start` ("\nflags"), and
/// little more: the kernel writes such files as they are read.
std::string read_until(const std::string& path, std::string_view line_start);

/// Target of a symbolic link; nothing when there is none.
std::optional<std::string> try_read_link(const std::string& path);
std::string read_link(const std::string& path);

/// The symbolic links of one folder, of which a path would have to be looked up for each.
class Links {
 public:
  /// Of a folder that does not exist, or may not be looked into, there are none.
  explicit Links(const std::string& folder);
  std::optional<std::string> try_read(const char* name) const;

 private:
  Fd folder_;
};

/// Threads of a process in the kernel's order: the leader first.  Empty when it does not exist.
std::vector<pid_t> list_threads(pid_t pid);

/// All that we see.
std::vector<pid_t> list_processes();

/// Numbers of the open descriptors of a process, ascending.
std::vector<int> list_descriptors(pid_t pid);

/// A line of /proc/PID/timers: what timer_create(2) was given.
struct ListedTimer {
  int id = 0;
  int signal = 0;
  std::uint64_t value = 0;
  int notify = 0;    ///< SIGEV_*
  pid_t target = 0;  ///< process or thread, as we see it
  int clock = 0;     ///< as the process itself named it
};
std::vector<ListedTimer> list_timers(pid_t pid);

/// Children of every thread, zombies included.
std::vector<pid_t> list_children(pid_t pid);

/// /proc/TID/status by field name.
class Status {
 public:
  static std::optional<Status> read(pid_t tid);

  /// Empty when there is no such field.
  std::string_view text(std::string_view field) const;
  std::uint64_t number(std::string_view field, int base = 10) const;
  std::vector<std::uint64_t> numbers(std::string_view field) const;

 private:
  explicit Status(std::string text) : text_(std::move(text)) {}

  std::string text_;
};

/// True when the thread has ended and waits to be reaped.
bool is_zombie(pid_t tid);

/// True when the thread stands still for its tracer; false as soon as somebody kills it.
bool is_in_tracing_stop(pid_t tid);

/// The fields of /proc/PID/stat that icecore needs.
struct Stat {
  char state = '?';
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  std::uint64_t terminal = 0;  ///< device number of the controlling terminal; 0: none
  pid_t foreground = 0;        ///< process group in its foreground; -1: none
  std::uint64_t flags = 0;
  long nice = 0;
  std::uint64_t start_time = 0;
  std::uint64_t start_code = 0, end_code = 0, start_stack = 0;
  int cpu = 0;  ///< where it last ran
  std::uint64_t start_data = 0, end_data = 0, start_brk = 0;
  std::uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;

  bool kernel_thread() const { return (flags & 0x00200000) != 0; }
};
std::optional<Stat> read_stat(pid_t tid);

/// What the scheduler says of a thread.
struct SchedulerView {
  std::int64_t last_ran_ns = 0;  ///< on the scheduler's clock
  std::uint64_t switches = 0;    ///< how often it got and lost a CPU
  unsigned cpu = 0;              ///< where it last ran
};
/// Nothing when the kernel does not say.
std::optional<SchedulerView> scheduler_view(pid_t tid);

/// The kernel function in which a thread sleeps, as "hrtimer_nanosleep"; empty when not known.
std::string sleeping_function(pid_t tid);

/// The scheduler's clock of one CPU now, as precise as SchedulerView::last_ran_ns.  Moves the
/// calling thread to that CPU for a moment; nothing when it may not go there.
std::optional<std::int64_t> scheduler_clock_ns(unsigned cpu);

/// A timer of CLOCK_MONOTONIC that will wake some thread of the machine.
struct WakingTimer {
  std::uint64_t id;  ///< the same for as long as the thread sleeps
  std::chrono::steady_clock::time_point end;
};
/// Those that are set now; empty when the kernel does not say.
std::vector<WakingTimer> waking_timers();

/// The system call in which a thread sleeps.
struct SleepingCall {
  long number = -1;
  std::array<std::uint64_t, 6> arguments{};
};
/// Nothing when it does not sleep in one.
std::optional<SleepingCall> sleeping_call(pid_t tid);

}  // namespace icecore::sys
