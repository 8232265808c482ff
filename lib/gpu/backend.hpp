// SPDX-License-Identifier: Apache-2.0
#pragma once

// How device memory of a process is saved and brought back: one way per driver interface.
//
// There is one so far, ProcessCheckpoint.  Custom storage (CUDA 13.4) has the same five steps, with
// three differences:
//  * The caller of the driver gets the device memory as pointers of its own, copies it, and says
//    that it is done (cuCheckpointOperationComplete).  So its save() and restore() move bytes
//    between the helper and a part of the image, which the backend is given when it is made; the
//    process holds no carrier then.
//  * The helper has to live, with a primary context on each GPU, until the process ends.
//  * Once begun it cannot be given up: roll_back() has to say that the process is lost.

#include <span>
#include <string>
#include <vector>

#include "gpu/cuda.hpp"
#include "gpu/thread_gate.hpp"

namespace icecore::gpu {

/// A step that fails throws icecore::Error with the reason.
class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  /// While the process runs: waits until its GPUs have nothing to do, and gives them nothing more.
  virtual void quiesce() = 0;

  /// While it stands still: its device memory goes to where a snapshot finds it.
  virtual void save(const ThreadGate& gate) = 0;

  /// And back, to GPUs that `pairs` may name anew (all of them, or none).
  virtual void restore(const ThreadGate& gate, std::span<const GpuPair> pairs) = 0;

  /// Ends what quiesce() began.
  virtual void resume(const ThreadGate& gate) = 0;

  /// Back to the state that was found, from wherever a step has failed.  Returns why that could not
  /// be done; empty when it was.
  virtual std::string roll_back(const ThreadGate& gate) noexcept = 0;
};

}  // namespace icecore::gpu
