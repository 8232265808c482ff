// SPDX-License-Identifier: Apache-2.0
#pragma once

// A whole process: asks all rooms at once what only the process can answer.

#include <memory>
#include <optional>
#include <vector>

#include "image/state_generated.h"
#include "memory/page_selection.hpp"
#include "state/capture.hpp"
#include "state/timeouts.hpp"
#include "tracee/process_copy.hpp"

namespace icecore {

struct CapturedProcess {
  std::unique_ptr<state::ProcessT> state;  ///< without its files: Capture::files has them
  std::vector<std::uint8_t> vdso;
  std::vector<PageSource> pages;
};

/// Lets threads leave the vdso: under another kernel they could not go on inside.
void leave_vdso(FrozenProcess& process, const std::stop_token& stop);

/// Refuses a process that cannot be entered without harm, and prepares one that can.
void refuse_to_enter(Capture& capture);

/// Reads everything but the pages of a process that stands still.  What cannot be kept is in
/// `capture.refusals` afterwards.
CapturedProcess capture_process(Capture& capture, const SleepObserver& sleeps);

/// A copy of a process of which everything but the pages has been read, to find and read these in.
/// Nothing when it would lack some of them, or cannot be made.
std::optional<ProcessCopy> try_copy_process(Capture& capture, CapturedProcess& captured);

}  // namespace icecore
