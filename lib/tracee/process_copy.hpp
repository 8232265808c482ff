// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <utility>

#include "tracee/foothold.hpp"
#include "tracee/frozen_process.hpp"

namespace icecore {

/// A process with the memory that another one has at this moment, and that never runs: so the other
/// can run on while it is read.
///
/// It is a child of the other one's parent, which has to be us, so that the other sees nothing of
/// it: no child, no signal.  With it the other shares private memory, copy on write: not memory
/// that is shared with others, nor what madvise(2) keeps from a fork.  It ends with this object, or
/// with us.
///
/// Kernel facts relied on here: CLONE_PTRACE makes a child that is traced by the same thread and
/// stops before its first instruction, without any option that would report it to the parent.
/// CLONE_PARENT gives it our child's parent and termination signal, and is EINVAL for the init of a
/// pid namespace.  With CLONE_FILES nothing is closed, and no lock given back, at its end.
class ProcessCopy {
 public:
  /// Nothing when the kernel makes none: no memory, no room for another process, …
  static std::optional<ProcessCopy> try_make(FrozenProcess& process, Foothold& foothold);

  ProcessCopy(ProcessCopy&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  ProcessCopy& operator=(ProcessCopy&&) = delete;
  ~ProcessCopy();

  pid_t pid() const noexcept { return pid_; }

 private:
  explicit ProcessCopy(pid_t pid) : pid_(pid) {}

  pid_t pid_;  // 0 once moved from
};

}  // namespace icecore
