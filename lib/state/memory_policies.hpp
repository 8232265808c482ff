// SPDX-License-Identifier: Apache-2.0
#pragma once

// The memory policies of mappings (mbind).
//
// Only the process itself can ask for them: /proc/PID/numa_maps walks through all of its pages.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "image/state_generated.h"
#include "state/refusals.hpp"
#include "sys/proc_maps.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

using MemoryPolicies = std::vector<std::unique_ptr<state::MemoryPolicyT>>;

/// The questions about them.
class MemoryPolicyQuestions {
 public:
  /// What they take of a list to be asked together, of all but very many mappings.
  static std::size_t calls(const std::vector<sys::Vma>& vmas);
  static std::size_t bytes(const std::vector<sys::Vma>& vmas);

  /// Asks as many as the list has room for.
  MemoryPolicyQuestions(const std::vector<sys::Vma>& vmas, CallList& list);

  /// Hears `list`, and asks the rest, and more of those that have a policy, through `calls`.
  MemoryPolicies answers(const CallList& list, CallStream& calls);

 private:
  /// [start, end) that has one policy.
  using Range = std::pair<std::uint64_t, std::uint64_t>;
  struct Asked {
    Range range;
    std::size_t call;
    std::uint64_t mode;  ///< where the answer is
  };

  void ask(CallList& list);
  void hear(const CallList& list);

  std::vector<Range> ranges_;
  std::size_t next_ = 0;  ///< the first that has not been asked about
  std::vector<Asked> asked_;
  std::vector<Range> found_;  ///< with a policy of their own
};

/// Once everything is mapped, and before there are pages.
void rebuild_memory_policies(const state::AddressSpaceT& image, CallStream& calls);

/// Those that this machine, or our cpuset, would not keep as they are; of threads too.
void refuse_lacking_nodes(const state::ProcessT& process, Refusals& refusals);

}  // namespace icecore
