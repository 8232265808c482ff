// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace icecore {

/// What a JSON text says.  Numbers are whole; that is all that icecore writes.
///
/// The text is untrusted: depth is bounded, and whoever asks for a value of another kind gets an
/// Error as if the text had been malformed.
class JsonValue {
 public:
  using List = std::vector<JsonValue>;
  using Object = std::map<std::string, JsonValue, std::less<>>;

  JsonValue() = default;

  /// Throws Errc::invalid_argument, with the offset, when `text` is not one JSON value.
  static JsonValue parse(std::string_view text);

  bool is_null() const noexcept { return std::holds_alternative<std::monostate>(value_); }
  bool boolean() const;
  std::int64_t number() const;
  const std::string& text() const;
  const List& list() const;
  const Object& object() const;

  /// Of a list of strings.
  std::vector<std::string> texts() const;

  /// A member of an object; null when there is none.
  const JsonValue& operator[](std::string_view name) const;

 private:
  friend class JsonParser;
  std::variant<std::monostate, bool, std::int64_t, std::string, List, Object> value_;
};

}  // namespace icecore
