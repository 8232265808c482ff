// SPDX-License-Identifier: Apache-2.0
#pragma once

// The clocks of a process, and what it has set on them: interval timers (setitimer, alarm) and
// POSIX timers (timer_create).  Timeouts of system calls are in timeouts.hpp, timerfds among the
// descriptors.

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "sys/procfs.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

/// The questions about time that only the process itself can answer.
class TimerQuestions {
 public:
  /// Room that a CallList for these questions needs.
  static std::size_t calls(std::size_t timers) { return kCalls + timers; }
  static std::size_t bytes(std::size_t timers) { return kBytes + timers * kTimerBytes; }

  TimerQuestions(CallList& list, std::vector<sys::ListedTimer> timers);

  /// Refuses what cannot be kept.
  std::unique_ptr<state::TimeT> answers(const CallList& list, Capture& capture) const;

 private:
  static constexpr std::size_t kCalls = 5;
  static constexpr std::size_t kBytes = kCalls * 64 + 128;
  static constexpr std::size_t kTimerBytes = 64 + 32;

  std::vector<sys::ListedTimer> timers_;
  std::uint64_t clocks_;     // two timespecs
  std::uint64_t intervals_;  // three itimervals
  std::uint64_t left_;       // an itimerspec for each of timers_
};

/// Finds the timers whose signals are pending, and takes these signals out of `process`: a timer
/// that has expired raises its own again, and so knows of it.  `since_asked`: no less time than has
/// passed between the questions and the reading of the pending signals; timers do not stand still.
void take_signals_of_timers(const Capture& capture, std::chrono::nanoseconds since_asked,
                            state::ProcessT& process);

/// True when something runs that is to begin only with the process.
bool has_running_timers(const state::ProcessT& process);

/// Makes the POSIX timers, not running yet.  The threads that they signal exist.
void rebuild_timers(const state::ProcessT& process, CallStream& calls);

/// Lets them and the interval timers run: what was left begins now.
void start_timers(const state::ProcessT& process, CallStream& calls);

/// Waits until those that had expired have expired again, which is an interrupt away: the program
/// would see that a pending signal is missing.  `threads`: ids as we see them, the leader first.
void await_expired_timers(const state::ProcessT& process, std::span<const pid_t> threads);

/// By how much the clocks of a process restored here have to be set forward, so that none of them
/// goes back.
struct ClockOffsets {
  std::int64_t monotonic_ns = 0;
  std::int64_t boottime_ns = 0;

  bool needed() const { return monotonic_ns > 0 || boottime_ns > 0; }
};
ClockOffsets clock_offsets(const state::ProcessT& process);

void refuse_lacking_clocks(const state::ProcessT& process, const sys::Status& own,
                           Refusals& refusals);

}  // namespace icecore
