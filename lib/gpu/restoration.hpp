// SPDX-License-Identifier: Apache-2.0
#pragma once

// The GPU side of a restore, for lib/restore.cpp and lib/check.cpp.

#include <deque>
#include <memory>
#include <vector>

#include "gpu/process_checkpoint.hpp"
#include "icecore/image.hpp"
#include "icecore/restore.hpp"
#include "image/state_generated.h"

namespace icecore::gpu {

class Restoration {
 public:
  /// Nothing when the image is of a process without GPUs, or of one that somebody else had
  /// checkpointed and will bring back; then nothing was started.
  static std::unique_ptr<Restoration> of(const state::ProcessT& image,
                                         const RestoreOptions& options);

  /// Whatever this machine's GPUs and driver lack; one that is ok when nothing.
  const std::vector<Finding>& findings() const noexcept { return findings_; }

  /// Brings device memory back.  The process is complete and stands still; only the driver's thread
  /// runs meanwhile.  Throws Errc::incompatible; the process is of no use then.
  void run(std::deque<Tracee>& threads, pid_t pid);

  /// That the driver brings back.
  std::uint64_t bytes() const noexcept { return image_.gpu->saved_bytes; }

 private:
  Restoration(const state::ProcessT& image, const RestoreOptions& options);
  std::uint64_t buffer_bytes() const noexcept;
  void check();
  void check_devices();
  void check_memory();
  void check_cgroup();
  const DeviceInfo* counterpart(const state::GpuDeviceT& device);
  void complain(std::string subject, std::string reason, std::string remedy = {});

  const state::ProcessT& image_;
  const RestoreOptions& options_;
  ProcessCheckpoint driver_;
  DriverHere here_;
  std::vector<GpuPair> pairs_;  ///< empty when every GPU is itself
  std::vector<Uuid> used_;      ///< of this machine
  std::vector<Finding> findings_;
};

}  // namespace icecore::gpu
