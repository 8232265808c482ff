// SPDX-License-Identifier: Apache-2.0
#include "format.hpp"

#include <fmt/format.h>

namespace icecore::tool {

std::string human_size(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double size = static_cast<double>(bytes) / 1024;
  for (const char* unit : {"KiB", "MiB", "GiB"}) {
    if (size < 1024) return fmt::format("{:.1f} {}", size, unit);
    size /= 1024;
  }
  return fmt::format("{:.1f} TiB", size);
}

std::string human_time(std::chrono::nanoseconds time) {
  const std::chrono::duration<double> seconds = time;
  if (seconds.count() < 1) return fmt::format("{:.2f} ms", seconds.count() * 1000);
  return fmt::format("{:.2f} s", seconds.count());
}

std::string human_pace(std::uint64_t bytes, std::chrono::nanoseconds time) {
  const double seconds = std::chrono::duration<double>(time).count();
  if (seconds <= 0) return human_time(time);
  return fmt::format("{} ({:.1f} GB/s)", human_time(time),
                     static_cast<double>(bytes) / seconds / 1e9);
}

std::string printable(std::string_view text) {
  std::string clean;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    clean += byte < 0x20 || byte == 0x7f ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return clean;
}

}  // namespace icecore::tool
