// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace icecore {

/// What becomes of bytes that are not UTF-8 (a path can hold any).
enum class NotUtf8 {
  replaced,  ///< by U+FFFD, which every parser takes
  kept       ///< as half a surrogate pair, of which our own parser makes the byte again
};

/// `text` as a JSON string, quotes included.
std::string json_string(std::string_view text, NotUtf8 not_utf8 = NotUtf8::replaced);

/// Builds the text of one JSON object, field by field in the order of the calls.
class JsonObject {
 public:
  explicit JsonObject(NotUtf8 not_utf8 = NotUtf8::replaced) : not_utf8_(not_utf8) {}

  NotUtf8 not_utf8() const { return not_utf8_; }

  JsonObject& add(std::string_view name, std::string_view value) {
    return add_text(name, json_string(value, not_utf8_));
  }
  JsonObject& add(std::string_view name, const char* value) {
    return add(name, std::string_view{value});
  }
  JsonObject& add(std::string_view name, bool value) {
    return add_text(name, value ? "true" : "false");
  }
  JsonObject& add(std::string_view name, std::integral auto value) {
    return add_text(name, std::to_string(value));
  }
  JsonObject& add(std::string_view name, const JsonObject& value) {
    return add_text(name, value.text());
  }
  JsonObject& add(std::string_view name, const std::vector<std::string>& values) {
    return add_list(name, values,
                    [this](const std::string& value) { return json_string(value, not_utf8_); });
  }

  template <std::integral Number>
  JsonObject& add(std::string_view name, const std::vector<Number>& values) {
    return add_list(name, values, [](Number value) { return std::to_string(value); });
  }

  /// In whole microseconds; the name should end in _us.
  JsonObject& add(std::string_view name, std::chrono::nanoseconds value) {
    return add(name, std::chrono::duration_cast<std::chrono::microseconds>(value).count());
  }

  /// An array of what `describe` makes of each element.
  template <class Element, class Describe>
  JsonObject& add(std::string_view name, const std::vector<Element>& elements, Describe describe) {
    return add_list(name, elements,
                    [&](const Element& element) { return describe(element).text(); });
  }

  std::string text() const { return "{" + fields_ + "}"; }

 private:
  JsonObject& add_text(std::string_view name, std::string_view text);

  template <class Element, class ToText>
  JsonObject& add_list(std::string_view name, const std::vector<Element>& elements,
                       ToText to_text) {
    std::string list;
    for (const Element& element : elements) {
      if (!list.empty()) list += ',';
      list += to_text(element);
    }
    return add_text(name, "[" + list + "]");
  }

  NotUtf8 not_utf8_;
  std::string fields_;
};

}  // namespace icecore
