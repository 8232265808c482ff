// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace icecore::sys {

/// Where a program of ours lies: beside the library, or where it is installed; both may be moved
/// together.  The environment variable `variable` may say otherwise.  Empty when it is not there.
std::string find_own_program(const std::string& name, const char* variable);

}  // namespace icecore::sys
