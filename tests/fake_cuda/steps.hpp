// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the documentation of the CUDA Driver API says that the calls for checkpoints do, as data:
// each step is made in the state that the one before has left the process in.

#include "gpu/cuda.hpp"

namespace fake {

using icecore::gpu::ProcessState;
using icecore::gpu::Result;

enum class Call { state, lock, checkpoint, restore, unlock };
enum class Subject { target, no_process, other_process };
enum class Arguments { plain, none, reserved_set };

struct Step {
  const char* name;
  Call call;
  Result result;
  ProcessState after;  ///< of the target
  Subject subject = Subject::target;
  Arguments arguments = Arguments::plain;
};

inline constexpr Step kSteps[] = {
    {"a fresh process runs", Call::state, Result::success, ProcessState::running},
    {"unlock what runs", Call::unlock, Result::illegal_state, ProcessState::running},
    {"checkpoint what runs", Call::checkpoint, Result::illegal_state, ProcessState::running},
    {"restore what runs", Call::restore, Result::illegal_state, ProcessState::running},
    {"lock with reserved bytes set", Call::lock, Result::invalid_value, ProcessState::running,
     Subject::target, Arguments::reserved_set},
    {"lock", Call::lock, Result::success, ProcessState::locked},
    {"lock what is locked", Call::lock, Result::illegal_state, ProcessState::locked},
    {"restore what is locked", Call::restore, Result::illegal_state, ProcessState::locked},
    {"unlock with reserved bytes set", Call::unlock, Result::invalid_value, ProcessState::locked,
     Subject::target, Arguments::reserved_set},
    {"unlock", Call::unlock, Result::success, ProcessState::running},
    {"lock without arguments", Call::lock, Result::success, ProcessState::locked, Subject::target,
     Arguments::none},
    {"checkpoint with reserved bytes set", Call::checkpoint, Result::invalid_value,
     ProcessState::locked, Subject::target, Arguments::reserved_set},
    {"checkpoint", Call::checkpoint, Result::success, ProcessState::checkpointed},
    {"checkpoint what is checkpointed", Call::checkpoint, Result::illegal_state,
     ProcessState::checkpointed},
    {"lock what is checkpointed", Call::lock, Result::illegal_state, ProcessState::checkpointed},
    {"unlock what is checkpointed", Call::unlock, Result::illegal_state,
     ProcessState::checkpointed},
    {"restore with reserved bytes set", Call::restore, Result::invalid_value,
     ProcessState::checkpointed, Subject::target, Arguments::reserved_set},
    {"restore", Call::restore, Result::success, ProcessState::locked},
    {"restore what is restored", Call::restore, Result::illegal_state, ProcessState::locked},
    {"checkpoint without arguments", Call::checkpoint, Result::success, ProcessState::checkpointed,
     Subject::target, Arguments::none},
    {"restore without arguments", Call::restore, Result::success, ProcessState::locked,
     Subject::target, Arguments::none},
    {"unlock at last", Call::unlock, Result::success, ProcessState::running, Subject::target,
     Arguments::none},
    // Not documented; as seen on drivers 580 and 595.
    {"lock a process without CUDA", Call::lock, Result::not_initialized, ProcessState::running,
     Subject::other_process},
    {"lock a process that does not exist", Call::lock, Result::operating_system,
     ProcessState::running, Subject::no_process},
};

}  // namespace fake
