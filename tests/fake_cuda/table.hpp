// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the documentation of the CUDA Driver API says that the calls for checkpoints do, as data:
// (call, state) -> result, state.  The test driver does what is here, and gpu_conformance holds any
// driver against it.

#include <cstdint>
#include <iterator>

#include "gpu/cuda.hpp"

namespace fake {

using icecore::gpu::ProcessState;
using icecore::gpu::Result;

enum class Call : std::uint32_t { state, lock, checkpoint, restore, unlock };
constexpr const char* kCallNames[] = {"state", "lock", "checkpoint", "restore", "unlock"};

struct Transition {
  Call call;
  ProcessState from;
  Result result;
  ProcessState to;
};

inline constexpr Transition kTransitions[] = {
    {Call::lock, ProcessState::running, Result::success, ProcessState::locked},
    {Call::lock, ProcessState::locked, Result::illegal_state, ProcessState::locked},
    {Call::lock, ProcessState::checkpointed, Result::illegal_state, ProcessState::checkpointed},
    {Call::checkpoint, ProcessState::running, Result::illegal_state, ProcessState::running},
    {Call::checkpoint, ProcessState::locked, Result::success, ProcessState::checkpointed},
    {Call::checkpoint, ProcessState::checkpointed, Result::illegal_state,
     ProcessState::checkpointed},
    {Call::restore, ProcessState::running, Result::illegal_state, ProcessState::running},
    {Call::restore, ProcessState::locked, Result::illegal_state, ProcessState::locked},
    {Call::restore, ProcessState::checkpointed, Result::success, ProcessState::locked},
    {Call::unlock, ProcessState::running, Result::illegal_state, ProcessState::running},
    {Call::unlock, ProcessState::locked, Result::success, ProcessState::running},
    {Call::unlock, ProcessState::checkpointed, Result::illegal_state, ProcessState::checkpointed},
};

/// Call::state succeeds in each and changes none.
constexpr Transition transition(Call call, ProcessState from) {
  for (const Transition& row : kTransitions)
    if (row.call == call && row.from == from) return row;
  return {call, from, Result::success, from};
}

// ---- what gpu_conformance does with a driver: each step in the state that the one before has left

enum class Subject { target, no_process, other_process };
enum class Arguments { plain, none, reserved_set };

struct Step {
  const char* name;
  Call call;
  Subject subject = Subject::target;
  Arguments arguments = Arguments::plain;
  Result otherwise = Result::success;  ///< what is expected where the table above does not say it
};

inline constexpr Step kSteps[] = {
    {"a fresh process runs", Call::state},
    {"unlock what runs", Call::unlock},
    {"checkpoint what runs", Call::checkpoint},
    {"restore what runs", Call::restore},
    {"lock with reserved bytes set", Call::lock, Subject::target, Arguments::reserved_set,
     Result::invalid_value},
    {"lock", Call::lock},
    {"lock what is locked", Call::lock},
    {"restore what is locked", Call::restore},
    {"unlock with reserved bytes set", Call::unlock, Subject::target, Arguments::reserved_set,
     Result::invalid_value},
    {"unlock", Call::unlock},
    {"lock without arguments", Call::lock, Subject::target, Arguments::none},
    {"checkpoint with reserved bytes set", Call::checkpoint, Subject::target,
     Arguments::reserved_set, Result::invalid_value},
    {"checkpoint", Call::checkpoint},
    {"checkpoint what is checkpointed", Call::checkpoint},
    {"lock what is checkpointed", Call::lock},
    {"unlock what is checkpointed", Call::unlock},
    {"restore with reserved bytes set", Call::restore, Subject::target, Arguments::reserved_set,
     Result::invalid_value},
    {"restore", Call::restore},
    {"restore what is restored", Call::restore},
    {"checkpoint without arguments", Call::checkpoint, Subject::target, Arguments::none},
    {"restore without arguments", Call::restore, Subject::target, Arguments::none},
    {"unlock at last", Call::unlock, Subject::target, Arguments::none},
    // Not documented; as seen on drivers 580 and 595.
    {"lock a process without CUDA", Call::lock, Subject::other_process, Arguments::plain,
     Result::not_initialized},
    {"lock a process that does not exist", Call::lock, Subject::no_process, Arguments::plain,
     Result::operating_system},
};

/// What comes of a step when the target is in a state.
constexpr Transition expected(const Step& step, ProcessState before) {
  if (step.otherwise != Result::success) return {step.call, before, step.otherwise, before};
  return transition(step.call, before);
}

/// Every row of the table is tried, and the process runs at the end.
constexpr bool steps_cover_table() {
  bool tried[std::size(kTransitions)] = {};
  ProcessState state = ProcessState::running;
  for (const Step& step : kSteps) {
    for (std::size_t i = 0; i < std::size(kTransitions); ++i)
      if (step.otherwise == Result::success && kTransitions[i].call == step.call &&
          kTransitions[i].from == state)
        tried[i] = true;
    state = expected(step, state).to;
  }
  for (const bool row : tried)
    if (!row) return false;
  return state == ProcessState::running;
}
static_assert(steps_cover_table());

}  // namespace fake
