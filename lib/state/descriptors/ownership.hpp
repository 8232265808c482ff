// SPDX-License-Identifier: Apache-2.0
#pragma once

// What any open file description can have: locks, a lease, and somebody who gets its signals.

#include <vector>

#include "state/descriptors/room.hpp"

namespace icecore {

/// Throws Errc::unsupported when it cannot be kept.
void capture_ownership(const DescriptorCapture& all, const OpenDescription& open,
                       state::DescriptionT& description);

/// Takes the locks that belong to a description of ours, and looks whether those that the process
/// has to take itself are free.  Throws Errc::incompatible when somebody else's are in the way.
void take_locks(const sys::Fd& ours, const state::DescriptionT& description, int number);

/// Adds the calls that take the others, at the very end: closing a descriptor would drop them.
void finish_ownership(const DescriptorFinish& stage, const state::DescriptionT& description,
                      int number);

/// Who gets the signals; once all threads exist.  `threads`: their ids as we see them.
void rebuild_signal_owner(const sys::Fd& ours, const state::DescriptionT& description,
                          const std::vector<pid_t>& threads);

}  // namespace icecore
