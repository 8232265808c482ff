// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "state/signals.hpp"
#include "state/timeouts.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {

/// The questions about one thread that only it can answer.
class ThreadQuestions {
 public:
  /// Room that a CallList for these questions needs.
  static constexpr std::size_t kCalls = 3;
  static constexpr std::size_t kNameBytes = 16;
  static constexpr std::size_t kBytes = kCalls * 64 + 128;

  explicit ThreadQuestions(CallList& list);

 private:
  friend std::unique_ptr<state::ThreadT> capture_thread(Capture&, const Tracee&,
                                                        const ThreadQuestions&, const CallList&,
                                                        const sys::Status&, const SleepObserver&);
  std::uint64_t alternate_stack_;
  std::uint64_t tid_address_;
  std::uint64_t name_;
};

std::unique_ptr<state::ThreadT> capture_thread(Capture& capture, const Tracee& thread,
                                               const ThreadQuestions& questions,
                                               const CallList& answers, const sys::Status& status,
                                               const SleepObserver& sleeps);

// ---- rebuilding, in this order ----------------------------------------------------------------

/// Adds the call with which the leader makes a thread, stopped before its first instruction.
void rebuild_clone(const state::ThreadT& thread, CallList& list);

/// What rebuild_thread_calls() takes of a CallList.
std::size_t rebuild_thread_bytes(const state::ThreadT& thread);
std::size_t rebuild_thread_call_count(const state::ThreadT& thread);

/// Adds the calls that a thread makes for itself once its memory is there.
void rebuild_thread_calls(const state::ThreadT& thread, pid_t pid, CallList& list);

/// Last of all: registers and signal mask.  `xstate_bytes`: the size of this machine's XSAVE area.
void rebuild_registers(const state::ThreadT& thread, const sys::Registers& registers, pid_t tid,
                       std::size_t xstate_bytes);

/// The registers in the image.
sys::Registers registers_of(const state::ThreadT& thread);

/// True when the thread has AMX tile data, for which a fresh thread has no room yet.
bool uses_tile_data(const state::ThreadT& thread);

}  // namespace icecore
