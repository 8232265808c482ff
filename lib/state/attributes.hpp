// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a process has once, apart from memory, descriptors, signals and threads: ids, name, umask,
// working directory, limits, and the settings of prctl(2).

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

/// The questions about a process that only it can answer.
class AttributeQuestions {
 public:
  explicit AttributeQuestions(CallList& list);

  /// Fills in what this room is for, and brk; refuses what cannot be kept.
  void answers(const CallList& list, Capture& capture, state::ProcessT& process,
               state::AddressSpaceT& address_space) const;

 private:
  void refuse_timers(const CallList& list, Capture& capture) const;
  void refuse_settings(const CallList& list, Capture& capture) const;

  std::uint64_t timers_;  // three itimervals
  std::uint64_t words_;
  std::size_t brk_, dumpable_, thp_, timer_slack_, securebits_, mdwe_, merge_, flusher_;
};

/// Refuses processes whose world is not ours: other credentials or namespaces, seccomp.  Nothing of
/// them may even be looked at from inside.
void refuse_other_worlds(pid_t pid, std::span<const pid_t> threads, Refusals& refusals);

/// Refuses what can be seen from outside and cannot be kept: children, timers.
void refuse_from_outside(pid_t pid, Refusals& refusals);

/// Adds the calls that set everything again but the limits; `working_directory` is a descriptor in
/// the process.
void rebuild_attributes(const state::ProcessT& process, int working_directory, CallStream& calls);

/// What is set from outside, last.
void rebuild_limits(const state::ProcessT& process, pid_t pid);

/// Reasons why our own rights do not suffice to give the process back what it had.
void refuse_lacking_rights(const state::ProcessT& process, Refusals& refusals);

}  // namespace icecore
