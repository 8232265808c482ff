// SPDX-License-Identifier: Apache-2.0
#pragma once

// The controlling terminal, where it lies outside the process: the process comes back on the
// terminal of whoever restores it, in the foreground there if it was, with the settings it had
// made.
//
// What stays behind: the session.  A terminal belongs to one session, which is that of the caller;
// so a process that led a session on a terminal leads a process group in that of the caller.

#include <string>

#include "icecore/restore.hpp"
#include "image/state_generated.h"
#include "sys/files.hpp"
#include "sys/terminal.hpp"

namespace icecore {

/// The device number of a descriptor's terminal; 0: it is none.  `own`: what /dev/tty stands for.
std::uint64_t terminal_device(const sys::FileStatus& status, std::uint64_t own);

/// Whether the process comes to stand on the terminal of the caller, and in its session: it was on
/// one, and some descriptor of it leads there.
bool stands_on_our_terminal(const state::ProcessT& image, const RestoreOptions& options);

/// Gives our terminal to the process, which is complete but does not run.  `pid` as we see it.
/// Nothing is done when it does not stand there, or we ourselves are in the background.
void give_terminal(const state::ProcessT& image, const RestoreOptions& options, pid_t pid,
                   const sys::Fd& process);

}  // namespace icecore
