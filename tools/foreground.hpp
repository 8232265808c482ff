// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/restore.hpp>
#include <signal.h>

namespace icecore::tool {

/// The signals that stay_in_foreground() passes on.  To be blocked before the restore, so that none
/// gets lost in between.
sigset_t foreground_signals();

/// Lives the life of `process` before the eyes of whoever started us: passes signals on, stops when
/// it stops, and returns its exit status (128 + N after signal N) when it ends.
int stay_in_foreground(RestoredProcess& process);

}  // namespace icecore::tool
