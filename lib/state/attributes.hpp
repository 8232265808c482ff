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

  /// Fills in what this room is for, and brk; refuses what cannot be kept, such as children.
  void answers(const CallList& list, Capture& capture, state::ProcessT& process,
               state::AddressSpaceT& address_space) const;

 private:
  std::uint64_t limits_;
  std::uint64_t words_;
  std::uint64_t segments_;
  std::size_t brk_, dumpable_, thp_, timer_slack_, mdwe_, merge_, membarrier_, segment_bytes_,
      children_;
};

/// Refuses processes whose world is not ours: other namespaces, another security label.  Nothing of
/// them may even be looked at from inside.
void refuse_other_worlds(pid_t pid, Refusals& refusals);

/// Adds the calls that set everything again but what rebuild_last_attributes() sets;
/// `working_directory` is a descriptor in the process.  `in_our_session`: it leads none of its own.
void rebuild_attributes(const state::ProcessT& process, int working_directory, bool in_our_session,
                        CallStream& calls);

/// What is set from outside, while the process still has our credentials.
void rebuild_from_outside(const state::ProcessT& process, pid_t pid);

/// The same for its limits, but with room in the signal queue for everything that is still to be
/// raised.
void rebuild_limits(const state::ProcessT& process, pid_t pid);

/// Adds the calls after which the process can do no more than it should: when memory, signals and
/// credentials are there.
void rebuild_last_attributes(const state::ProcessT& process, CallStream& calls);

/// Reasons why our own rights do not suffice to give the process back what it had.
void refuse_lacking_rights(const state::ProcessT& process, const sys::Status& own,
                           Refusals& refusals);

}  // namespace icecore
