// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

namespace icecore {

/// Throws when `pid` cannot be snapshotted, for every reason that can be seen without touching it.
void preflight(pid_t pid);

}  // namespace icecore
