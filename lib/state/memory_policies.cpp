// SPDX-License-Identifier: Apache-2.0
#include "state/memory_policies.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "sys/memory_features.hpp"

namespace icecore {
namespace {

constexpr std::uint64_t kOfAddress = 2;    // MPOL_F_ADDR
constexpr std::size_t kNodeWords = 16;     // of 1024 nodes, the most there can be
constexpr std::size_t kMostCalls = 16384;  // in one run
constexpr std::size_t kFewestCalls = 112;
constexpr std::size_t kAnswerBytes = 16;

bool is_of_kernel(const sys::Vma& vma) { return vma.name.starts_with("[v"); }

/// [start, end) that has one policy.
using Range = std::pair<std::uint64_t, std::uint64_t>;

/// A policy of shared memory belongs to the memory, and so may begin or end within a mapping of it,
/// where another one ends: the kernel has split that.
std::vector<Range> ranges_of(const std::vector<sys::Vma>& vmas) {
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::set<std::uint64_t>> ends;  // offsets
  for (const sys::Vma& vma : vmas)
    if (vma.inode != 0) ends[{vma.device, vma.inode}].insert({vma.offset, vma.offset + vma.size()});
  std::vector<Range> ranges;
  for (const sys::Vma& vma : vmas) {
    if (is_of_kernel(vma)) continue;
    std::uint64_t start = vma.start;
    if (vma.inode != 0) {
      const auto& of_file = ends[{vma.device, vma.inode}];
      for (auto at = of_file.upper_bound(vma.offset);
           at != of_file.end() && *at < vma.offset + vma.size(); ++at) {
        const std::uint64_t end = vma.start + (*at - vma.offset);
        ranges.emplace_back(start, end);
        start = end;
      }
    }
    ranges.emplace_back(start, vma.end);
  }
  return ranges;
}

std::unique_ptr<state::MemoryPolicyT> policy_of(const Range& range, CallStream& calls) {
  auto policy = std::make_unique<state::MemoryPolicyT>();
  policy->start = range.first;
  policy->end = range.second;
  CallList& list = calls.room(1, 8 + kNodeWords * 8);
  const std::uint64_t mode = list.reserve(8), nodes = list.reserve(kNodeWords * 8);
  list.call("read the memory policy of a mapping", SYS_get_mempolicy,
            {mode, nodes, kNodeWords * 64, range.first, kOfAddress});
  calls.run_and_read([&](const CallList& answers) {
    policy->mode = answers.value<std::uint32_t>(mode);
    for (std::size_t i = 0; i < kNodeWords; ++i)
      policy->nodes.push_back(answers.value<std::uint64_t>(nodes + 8 * i));
  });
  while (!policy->nodes.empty() && policy->nodes.back() == 0) policy->nodes.pop_back();
  return policy;
}

}  // namespace

std::size_t MemoryPolicyQuestions::calls(const std::vector<sys::Vma>& vmas) {
  return std::clamp(vmas.size(), kFewestCalls, kMostCalls);
}

std::size_t MemoryPolicyQuestions::bytes(const std::vector<sys::Vma>& vmas) {
  return calls(vmas) * (sizeof(RemoteCall) + kAnswerBytes) + 512;
}

MemoryPolicyQuestions::MemoryPolicyQuestions(const std::vector<sys::Vma>& vmas, CallList& list)
    : ranges_(ranges_of(vmas)) {
  ask(list);
}

void MemoryPolicyQuestions::ask(CallList& list) {
  asked_.clear();
  for (; next_ < ranges_.size() && list.has_room(1, kAnswerBytes); ++next_) {
    const std::uint64_t mode = list.reserve(8);
    asked_.push_back(
        {ranges_[next_],
         list.try_call(SYS_get_mempolicy, {mode, 0, 0, ranges_[next_].first, kOfAddress}), mode});
  }
}

void MemoryPolicyQuestions::hear(const CallList& list) {
  for (const Asked& asked : asked_)
    if (list.result(asked.call) == 0 && list.value<std::int32_t>(asked.mode) != 0)
      found_.push_back(asked.range);
}

MemoryPolicies MemoryPolicyQuestions::answers(const CallList& list, CallStream& calls) {
  hear(list);
  while (next_ < ranges_.size()) {
    ask(calls.room(1, kAnswerBytes));
    calls.run_and_read([&](const CallList& more) { hear(more); });
  }
  MemoryPolicies policies;
  for (const Range& range : found_) policies.push_back(policy_of(range, calls));
  return policies;
}

void rebuild_memory_policies(const state::AddressSpaceT& image, CallStream& calls) {
  for (const auto& policy : image.policies) {
    CallList& list = calls.room(1, policy->nodes.size() * 8 + 16);
    // One more than there are: the kernel takes one off.
    list.call(
        "set the memory policy of a mapping", SYS_mbind,
        {policy->start, policy->end - policy->start, policy->mode,
         list.put(std::as_bytes(std::span{policy->nodes})), policy->nodes.size() * 64 + 1, 0});
  }
}

void refuse_lacking_nodes(const state::ProcessT& process, Refusals& refusals) {
  constexpr const char* kWhy =
      "this kernel has no such policy, or the machine, or icecore's cpuset, lacks one of its nodes";
  std::set<std::pair<std::uint32_t, std::vector<std::uint64_t>>> possible;
  const auto is_possible = [&](std::uint32_t mode, const std::vector<std::uint64_t>& nodes) {
    if (mode == 0 || possible.contains({mode, nodes})) return true;
    if (!sys::takes_memory_policy(mode, nodes)) return false;
    possible.emplace(mode, nodes);
    return true;
  };
  for (const auto& thread : process.threads)
    if (!is_possible(static_cast<std::uint32_t>(thread->memory_policy), thread->memory_nodes))
      refusals.add("thread {}: memory policy {:#x} (set_mempolicy): {}", thread->tid,
                   thread->memory_policy, kWhy);
  for (const auto& policy : process.address_space->policies)
    if (!is_possible(policy->mode, policy->nodes))
      refusals.add("memory {:#x}-{:#x}: memory policy {:#x} (mbind): {}", policy->start,
                   policy->end, policy->mode, kWhy);
}

}  // namespace icecore
