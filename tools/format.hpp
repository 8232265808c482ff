// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace icecore::tool {

/// "812 bytes", "12.5 MiB".
std::string human_size(std::uint64_t bytes);

/// "0.84 ms", "2.31 s".
std::string human_time(std::chrono::nanoseconds time);

/// "2.31 s (8.4 GB/s)".
std::string human_pace(std::uint64_t bytes, std::chrono::nanoseconds time);

/// A control character would otherwise act on the terminal of whoever looks.
std::string printable(std::string_view text);

}  // namespace icecore::tool
