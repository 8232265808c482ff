// SPDX-License-Identifier: Apache-2.0
#pragma once

// What snapshot and restore say to libicecore_guest, if the process has it.

#include <chrono>
#include <optional>
#include <stop_token>

#include "icecore/restore.hpp"
#include "image/state_generated.h"
#include "sys/fd.hpp"

namespace icecore {

/// From before the freeze until the process runs on: its callbacks have been called, and those for
/// afterwards are called when this ends.
class GuestPause {
 public:
  /// Throws Errc::unsupported when a callback refuses, none answers in time, or somebody else is
  /// here already.
  GuestPause(pid_t pid, std::chrono::milliseconds patience, const std::stop_token& stop);
  GuestPause(const GuestPause&) = delete;
  GuestPause& operator=(const GuestPause&) = delete;
  ~GuestPause() { end(); }

  /// The process runs on, or is gone.
  void end() noexcept;

 private:
  void await_answer(const sys::Fd& process, const sys::Fd& answer,
                    std::chrono::milliseconds patience, const std::stop_token& stop) const;
  void withdraw() noexcept;

  pid_t pid_;
  sys::Fd lock_;
  sys::Fd bell_;  // none: there is nobody to talk to
};

/// What a snapshot of a process that stands still, and uses CUDA, has to say of those buffers that
/// are not the driver's business.  Throws Errc::unsupported when its list of them makes no sense.
void record_gpu_buffers(pid_t pid, state::ProcessT& process);

/// For a process that is complete but does not run: another generation, another id, this
/// invocation.
void greet_guest(const state::ProcessT& image, pid_t pid, const sys::Fd& process,
                 const Invocation& invocation);

/// Throws Errc::invalid_argument when it is too large.
void check_invocation(const Invocation& invocation);

}  // namespace icecore
