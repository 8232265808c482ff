// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a thread has set for itself, or others for it, besides its registers and signals:
// scheduling, memory policy, and the settings of prctl(2) and arch_prctl(2) that are a thread's
// own.

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {

class ThreadSettingQuestions {
 public:
  /// Room that a CallList for these questions needs.
  static constexpr std::size_t kCalls = 7;
  static constexpr std::size_t kBytes = kCalls * 64 + 256;

  explicit ThreadSettingQuestions(CallList& list);

  /// Fills in what this room is for; refuses what cannot be kept.
  void answers(const CallList& list, Capture& capture, const Tracee& thread,
               const sys::Status& status, state::ThreadT& state) const;

 private:
  static constexpr std::size_t kNodeWords = 16;  // of 1024 nodes, the most there can be

  std::uint64_t words_;
  std::size_t slack_, cpuid_, l1d_flush_, io_flusher_, memory_policy_;
};

/// Refuses what a thread has that makes it unwise to enter it.
void refuse_to_enter(const Tracee& thread, Refusals& refusals);

/// Adds the calls that a thread makes for itself; `process` says what it has anyway.
void rebuild_thread_settings(const state::ProcessT& process, const state::ThreadT& thread,
                             CallList& list);
constexpr std::size_t kThreadSettingCalls = 9;
std::size_t rebuild_thread_setting_bytes(const state::ThreadT& thread);

/// What is set from outside, while the thread is stopped.
void rebuild_scheduling(const state::ThreadT& thread, pid_t tid);

/// Reasons why our own rights, or this machine, do not suffice.
void refuse_lacking_settings(const state::ProcessT& process, const sys::Status& own,
                             Refusals& refusals);

}  // namespace icecore
