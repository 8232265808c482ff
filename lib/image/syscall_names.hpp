// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace icecore {

/// "futex", or "syscall 202" for one that is rarely blocked in.  x86-64.
std::string syscall_name(std::uint64_t number);

}  // namespace icecore
