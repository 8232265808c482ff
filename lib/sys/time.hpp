// SPDX-License-Identifier: Apache-2.0
#pragma once

// Clocks, and time namespaces.
//
// Kernel facts relied on here (Linux 5.6):
//  * unshare(CLONE_NEWTIME) is for the children of the calling *thread*, and wants CAP_SYS_ADMIN.
//    Offsets are those against the machine's clocks, not against our namespace, and can be set
//    until the first child is in it.
//  * A child that shares our memory (CLONE_VM) enters the namespace only with its exec.
//  * In it vvar shows other pages: the vdso needs no system call there either.

#include <sys/types.h>

#include <cstdint>

namespace icecore::sys {

inline constexpr std::int64_t kSecond = 1'000'000'000;  ///< in nanoseconds

/// A clock as we see it.
std::int64_t clock_ns(int clock);

/// The same, as a process sees it, which may be in another time namespace.
std::int64_t clock_ns_of(pid_t pid, int clock);

/// Whether a timer can be made with a wanted id (PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15).
bool can_choose_timer_ids() noexcept;

/// Programs that the calling thread starts from now on have clocks that are so much ahead of ours.
void set_clocks_of_children_forward(std::int64_t monotonic_ns, std::int64_t boottime_ns);

}  // namespace icecore::sys
