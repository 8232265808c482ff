// SPDX-License-Identifier: Apache-2.0
#pragma once

// Signal actions and process-directed pending signals.  What belongs to one thread (mask, alternate
// stack, its own pending signals) is in threads.hpp.

#include <vector>

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {

/// The questions of capture_signals, which only the process itself can answer.
class SignalQuestions {
 public:
  explicit SignalQuestions(CallList& list);
  std::unique_ptr<state::SignalsT> answers(const CallList& list, const Capture& capture) const;

 private:
  std::uint64_t actions_;  // 64 kernel sigactions, in the tracee
};

/// Adds the calls that set the actions again.
void rebuild_signal_actions(const state::SignalsT& signals, CallList& list);

/// Signals that wait for delivery.
struct QueuedSignals {
  std::vector<siginfo_t> infos;  ///< in order
  sys::SignalMask bare = 0;      ///< those that the kernel had no room for: bits without siginfo
};

/// Those of a stopped thread, or the `shared` ones of its process; `mask` is what /proc told of
/// them when it stopped.  Without SIGSTOP, which cannot be blocked: see was_stopped().
QueuedSignals queued_signals(pid_t tid, bool shared, sys::SignalMask mask);

/// True when SIGSTOP or its like has stopped the process, or is just about to.
bool was_stopped(const Capture& capture);

/// Adds the calls that raise pending signals again, in order; `thread_directed` ones for the
/// calling thread `tid`, else for the process.  Every signal must be blocked in every thread by
/// then, and RLIMIT_SIGPENDING be large enough.
void rebuild_pending_signals(std::span<const std::uint8_t> siginfos, bool thread_directed,
                             pid_t pid, pid_t tid, CallList& list);

/// The same for bare ones.  They are bare because RLIMIT_SIGPENDING is 0 by then.
void rebuild_bare_signals(sys::SignalMask bare, bool thread_directed, pid_t pid, pid_t tid,
                          CallList& list);

/// siginfo_t structures as bytes.
std::vector<std::uint8_t> pack_siginfos(const std::vector<siginfo_t>& infos);

/// The numbers of the signals in such bytes, one bit each.
sys::SignalMask signals_in(std::span<const std::uint8_t> siginfos);

}  // namespace icecore
