// SPDX-License-Identifier: Apache-2.0
#include "json/json.hpp"

#include <fmt/format.h>

#include <cstddef>

namespace icecore {
namespace {

unsigned byte_at(std::string_view text, std::size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
}

/// Length in bytes of the well-formed UTF-8 character that `text` begins with; 0 if it is none.
std::size_t utf8_length(std::string_view text) {
  const unsigned first = byte_at(text, 0);
  const unsigned second = byte_at(text, 1);
  const auto follows = [&](std::size_t at) { return (byte_at(text, at) & 0xc0U) == 0x80U; };

  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4 || !follows(1)) return 0;
  if (first < 0xe0) return 2;
  if (first < 0xf0) {
    const bool overlong = first == 0xe0 && second < 0xa0;
    const bool surrogate = first == 0xed && second > 0x9f;
    return follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  const bool overlong = first == 0xf0 && second < 0x90;
  const bool too_large = first == 0xf4 && second > 0x8f;
  return follows(2) && follows(3) && !overlong && !too_large ? 4 : 0;
}

}  // namespace

std::string json_string(std::string_view text, NotUtf8 not_utf8) {
  std::string quoted = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char first = text[0];
    if (length == 0 && not_utf8 == NotUtf8::kept)
      quoted += fmt::format("\\udc{:02x}", byte_at(text, 0));
    else if (length == 0)
      quoted += "\\ufffd";
    else if (first == '"' || first == '\\')
      quoted.append({'\\', first});
    else if (length == 1 && static_cast<unsigned char>(first) < 0x20)
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(first));
    else
      quoted += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return quoted + '"';
}

JsonObject& JsonObject::add_text(std::string_view name, std::string_view text) {
  if (!fields_.empty()) fields_ += ',';
  fields_ += json_string(name);
  fields_ += ':';
  fields_ += text;
  return *this;
}

}  // namespace icecore
