// SPDX-License-Identifier: Apache-2.0
#pragma once

// The memory policies of mappings (mbind).
//
// Only the process itself can ask for them: /proc/PID/numa_maps walks through all of its pages.

#include <vector>

#include "image/state_generated.h"
#include "state/refusals.hpp"
#include "sys/proc_maps.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

using MemoryPolicies = std::vector<std::unique_ptr<state::MemoryPolicyT>>;

/// The list of calls with which capture_memory_policies() does best.
std::size_t memory_policy_calls(const std::vector<sys::Vma>& vmas);
std::size_t memory_policy_bytes(const std::vector<sys::Vma>& vmas);

/// Asks the process.
MemoryPolicies capture_memory_policies(const std::vector<sys::Vma>& vmas, CallStream& calls);

/// Once everything is mapped, and before there are pages.
void rebuild_memory_policies(const state::AddressSpaceT& image, CallStream& calls);

/// Those that this machine, or our cpuset, would not keep as they are; of threads too.
void refuse_lacking_nodes(const state::ProcessT& process, Refusals& refusals);

}  // namespace icecore
