// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace icecore::tool {

/// "90", "90s", "10m", "2h", "7d".
std::optional<std::chrono::seconds> parse_duration(const std::string& text);
std::string check_duration(const std::string& text);

/// "4096", "10K", "5M", "2G": of 1024.
std::optional<std::uint64_t> parse_size(const std::string& text);
std::string check_size(const std::string& text);

}  // namespace icecore::tool
