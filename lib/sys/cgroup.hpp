// SPDX-License-Identifier: Apache-2.0
#pragma once

// Limits of control groups.
//
// Kernel facts relied on here:
//  * /proc/PID/cgroup has a line for each hierarchy: "0::/path" for version 2, "4:memory:/path" for
//    the memory controller of version 1.  A path begins with "/.." where the group is outside the
//    reader's cgroup namespace.
//  * A limit holds for all groups below it, so each one on the way up counts.
//  * What is used includes the page cache, which goes when memory is wanted; memory.stat has how
//  much
//    that is (inactive_file, active_file; in version 1 with "total_" those of all groups below).
//  * Beyond the limit the kernel kills.
//  * freezer.state (version 1) or cgroup.events (version 2) says that no process of a group runs,
//    whichever of those above it was frozen.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace icecore::sys {

/// How much more memory a process may be given.
struct MemoryRoom {
  std::uint64_t bytes = 0;
  std::string limit;  ///< the file that says so: "/sys/fs/cgroup/…/memory.max"
};
/// Nothing where there is no limit, or none that can be seen.
std::optional<MemoryRoom> memory_room(pid_t pid);

/// Its control group is frozen, as far as that can be seen: nothing of it runs, whoever asks it to.
bool is_frozen(pid_t pid);

}  // namespace icecore::sys
