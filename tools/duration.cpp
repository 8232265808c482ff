// SPDX-License-Identifier: Apache-2.0
#include "duration.hpp"

#include <charconv>
#include <string_view>

namespace icecore::tool {
namespace {

struct Unit {
  char letter;
  std::uint64_t factor;
};

/// A number with a unit behind it, which may be left out.
template <std::size_t Count>
std::optional<std::uint64_t> parse(std::string_view text, const Unit (&units)[Count]) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 40;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number > kMost) return std::nullopt;
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.empty()) return number;
  for (const Unit& known : units)
    if (unit.size() == 1 && unit[0] == known.letter) return number * known.factor;
  return std::nullopt;
}

}  // namespace

std::optional<std::chrono::seconds> parse_duration(const std::string& text) {
  constexpr Unit kUnits[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  const auto number = parse(text, kUnits);
  if (!number || *number > std::uint64_t{1} << 36) return std::nullopt;
  return std::chrono::seconds{*number};
}

std::string check_duration(const std::string& text) {
  return parse_duration(text) ? std::string{} : text + " is not a time such as 90, 10m, 2h or 7d";
}

std::optional<std::uint64_t> parse_size(const std::string& text) {
  constexpr Unit kUnits[] = {{'K', 1 << 10}, {'M', 1 << 20}, {'G', 1 << 30}};
  return parse(text, kUnits);
}

std::string check_size(const std::string& text) {
  return parse_size(text) ? std::string{} : text + " is not a size such as 4096, 500M or 10G";
}

}  // namespace icecore::tool
