// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long calls on a socket wait: SO_RCVTIMEO and SO_SNDTIMEO.
//
// Kernel facts relied on here:
//  * A call reads it once, when it begins; a stop ends such a call with EINTR.
//  * The kernel keeps it in ticks, rounded up; 0 is for ever.

#include <chrono>
#include <optional>

#include "sys/fd.hpp"

namespace icecore::sys {

/// 0: for ever.  Nothing for what is no socket.
std::optional<std::chrono::nanoseconds> socket_timeout(const Fd& socket, int option);
void set_socket_timeout(const Fd& socket, int option, std::chrono::nanoseconds timeout);

/// The same of a descriptor of another process, by its pidfd.
std::optional<std::chrono::nanoseconds> socket_timeout(const Fd& process, int number, int option);

}  // namespace icecore::sys
