// SPDX-License-Identifier: Apache-2.0
#include "sys/output_meter.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string_view>

namespace icecore::sys {

std::optional<OutputMeter> OutputMeter::try_open(pid_t pid) {
  Fd file{::open(fmt::format("/proc/{}/io", pid).c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) return std::nullopt;
  return OutputMeter{std::move(file)};
}

std::optional<std::uint64_t> OutputMeter::written_bytes() const {
  constexpr std::string_view kField = "wchar: ";
  std::array<char, 256> buffer;
  const ::ssize_t size = ::pread(file_.get(), buffer.data(), buffer.size(), 0);
  if (size <= 0) return std::nullopt;
  const std::string_view text{buffer.data(), static_cast<std::size_t>(size)};
  const std::size_t at = text.find(kField);
  if (at == std::string_view::npos) return std::nullopt;
  std::uint64_t bytes = 0;
  const char* const begin = text.data() + at + kField.size();
  if (std::from_chars(begin, text.data() + text.size(), bytes).ec != std::errc{})
    return std::nullopt;
  return bytes;
}

}  // namespace icecore::sys
