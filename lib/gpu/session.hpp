// SPDX-License-Identifier: Apache-2.0
#pragma once

// The GPU side of a snapshot, for lib/snapshot.cpp: two objects whose destructors put everything
// back, one for the time before the freeze and one for the time in it.

#include <sys/types.h>

#include <memory>
#include <stop_token>
#include <string>

#include "gpu/process_checkpoint.hpp"
#include "gpu/process_view.hpp"
#include "icecore/snapshot.hpp"
#include "image/state_generated.h"
#include "sys/proc_maps.hpp"
#include "tracee/frozen_process.hpp"

namespace icecore::gpu {

/// A process whose GPUs are at rest: it runs, but its calls of CUDA wait.
///
/// Destroying it ends that.
class Session {
 public:
  /// Nothing when the process uses no GPU; then nothing was started.  Throws Errc::unsupported when
  /// what it uses cannot be saved.
  static std::unique_ptr<Session> begin(pid_t pid, const SnapshotOptions& options);

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  /// The process is about to be killed.
  void forget() noexcept { driver_.leave(); }

  /// What the driver's refusal may be due to, one reason each.
  std::vector<std::string> suspicions() const;

  ProcessCheckpoint& driver() noexcept { return driver_; }
  const DriverHere& here() const noexcept { return here_; }

 private:
  Session(pid_t pid, const ProcessView& view, const SnapshotOptions& options);
  bool quiesce();
  void refuse_too_little_memory();

  pid_t pid_;
  ProcessView view_;  ///< before anything was done
  DriverHere here_;
  ProcessCheckpoint driver_;
};

/// A process that stands still, with its device memory in its own memory and no device open.
///
/// Destroying it brings that memory back into the GPUs and ends the session, while the process
/// still stands still; if that fails the process stays stopped (SIGSTOP).
class SavedMemory {
 public:
  SavedMemory(Session& session, FrozenProcess& process);
  SavedMemory(const SavedMemory&) = delete;
  SavedMemory& operator=(const SavedMemory&) = delete;
  ~SavedMemory();

  /// Back into the GPUs, which may be used again when the process runs.  Returns why the process is
  /// lost if that fails; then it stays stopped.
  std::string put_back() noexcept;

  /// The process is about to be killed.
  void forget() noexcept { needs_restore_ = false; }

  std::uint64_t bytes() const noexcept { return bytes_; }

  /// For a restore: what there was, where its bytes are, and what must be left free for it.
  void record(state::ProcessT& process) const;

 private:
  void compare(const std::vector<sys::Vma>& before, const std::vector<sys::Vma>& after);
  void refuse_what_is_left() const;
  Session& session_;
  FrozenProcess& process_;
  ThreadGate gate_;
  bool needs_restore_ = true;
  std::vector<state::AddressRange> carriers_;
  std::vector<state::AddressRange> holes_;
  std::uint64_t bytes_ = 0;
};

/// Marks what a restore has to have in place before the process runs.
void mark_gpu_data(state::ProcessT& process, const std::vector<state::AddressRange>& ranges);

/// True when a process turned out to use GPUs although begin() had found none: it has begun since.
bool has_begun_to_use_gpus(pid_t pid);

}  // namespace icecore::gpu
