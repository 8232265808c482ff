// SPDX-License-Identifier: Apache-2.0
#pragma once

// What differs between two uses of one image, as text and as a file.

#include <string>
#include <string_view>

#include "icecore/restore.hpp"
#include "sys/fd.hpp"

namespace icecore {

/// Variables, an empty string, arguments; each with a NUL behind it.
std::string text_of(const Invocation& invocation);

sys::Fd new_invocation_file(const Invocation& invocation);

/// Whether such a file is what /proc/PID/fd/N leads to.
bool is_invocation_file(std::string_view link);

}  // namespace icecore
