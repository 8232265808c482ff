// SPDX-License-Identifier: Apache-2.0
#pragma once

// Landlock: rules that a thread has given itself, and its children, and that nobody can take off.
//
// Kernel facts relied on here:
//  * Nothing in /proc shows them.
//  * A thread under rules may trace those alone that live under the same, or under these and more;
//    everywhere that asks for the right to trace counts, such as get_robust_list(2), which only
//    reads.  The credentials of both and other security modules can forbid it as well, with the
//    same error.
//  * Rules lie in layers, 16 at most (LANDLOCK_MAX_NUM_LAYERS); a thread that has none can add 16.
//    It needs no_new_privs for that, or CAP_SYS_ADMIN.  Both are its own, not of its process.

#include <future>

namespace icecore::sys {

/// Whether the kernel knows of it at all.  True when it cannot be asked.
bool may_have_landlock() noexcept;

/// Whether the calling thread lives under rules under which the init of its pid namespace does not
/// live.  Where init cannot be asked, another thread finds out by adding layers until it ends.
std::future<bool> lives_under_landlock();

}  // namespace icecore::sys
