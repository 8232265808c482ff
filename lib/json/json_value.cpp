// SPDX-License-Identifier: Apache-2.0
#include "json/json_value.hpp"

#include <fmt/format.h>

#include <charconv>

#include "icecore/error.hpp"

namespace icecore {

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  JsonValue whole() {
    JsonValue value = parse_value(0);
    skip_blanks();
    if (at_ != text_.size()) fail("text behind its end");
    return value;
  }

 private:
  static constexpr int kMaxDepth = 32;

  [[noreturn]] void fail(const char* what) const {
    throw Error{Errc::invalid_argument, fmt::format("not JSON: {} at byte {}", what, at_)};
  }

  void skip_blanks() {
    while (at_ < text_.size() && std::string_view{" \t\r\n"}.find(text_[at_]) != text_.npos) ++at_;
  }

  bool take(char wanted) {
    skip_blanks();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted, const char* what) {
    if (!take(wanted)) fail(what);
  }

  bool take_word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  JsonValue parse_value(int depth) {
    if (depth > kMaxDepth) fail("too deep");
    JsonValue value;
    skip_blanks();
    if (take('{'))
      value.value_ = parse_object(depth);
    else if (take('['))
      value.value_ = parse_list(depth);
    else if (at_ < text_.size() && text_[at_] == '"')
      value.value_ = parse_string();
    else if (take_word("true"))
      value.value_ = true;
    else if (take_word("false"))
      value.value_ = false;
    else if (!take_word("null"))
      value.value_ = parse_number();
    return value;
  }

  JsonValue::Object parse_object(int depth) {
    JsonValue::Object object;
    if (take('}')) return object;
    do {
      skip_blanks();
      std::string name = parse_string();
      expect(':', "no colon");
      object.insert_or_assign(std::move(name), parse_value(depth + 1));
    } while (take(','));
    expect('}', "no end of an object");
    return object;
  }

  JsonValue::List parse_list(int depth) {
    JsonValue::List list;
    if (take(']')) return list;
    do list.push_back(parse_value(depth + 1));
    while (take(','));
    expect(']', "no end of a list");
    return list;
  }

  std::int64_t parse_number() {
    std::int64_t number = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), number);
    if (error != std::errc{}) fail("no value");
    at_ += static_cast<std::size_t>(end - begin);
    if (at_ < text_.size() && std::string_view{".eE"}.find(text_[at_]) != text_.npos)
      fail("a number that is not whole");
    return number;
  }

  std::string parse_string() {
    if (at_ == text_.size() || text_[at_] != '"') fail("no string");
    ++at_;
    std::string text;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character");
      if (c == '\\')
        parse_escape(text);
      else
        text += c;
    }
    if (at_ == text_.size()) fail("no end of a string");
    ++at_;
    return text;
  }

  void parse_escape(std::string& text) {
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (at_ == text_.size()) fail("no end of a string");
    const char c = text_[at_++];
    if (c == 'u') return append_code_point(text, parse_code_point());
    const std::size_t name = kNames.find(c);
    if (name == kNames.npos) fail("an unknown escape");
    text += kMeanings[name];
  }

  std::uint32_t parse_code_point() {
    const std::uint32_t first = parse_four_digits();
    if (first < 0xd800 || first > 0xdfff || is_byte(first)) return first;
    if (first > 0xdbff || !take_word("\\u")) fail("half a surrogate pair");
    const std::uint32_t second = parse_four_digits();
    if (second < 0xdc00 || second > 0xdfff) fail("half a surrogate pair");
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
  }

  std::uint32_t parse_four_digits() {
    std::uint32_t number = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), number, 16);
    if (digits.size() < 4 || error != std::errc{} || end != digits.data() + 4)
      fail("a \\u without four digits");
    at_ += 4;
    return number;
  }

  /// Written by json_string() for a byte that is not UTF-8.
  static bool is_byte(std::uint32_t code) { return code >= 0xdc80 && code <= 0xdcff; }

  static void append_code_point(std::string& text, std::uint32_t code) {
    if (is_byte(code))
      text += static_cast<char>(code & 0xff);
    else
      append_utf8(text, code);
  }

  static void append_utf8(std::string& text, std::uint32_t code) {
    const auto add = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
    const auto follow = [&](unsigned shift) { add(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) return add(code);
    if (code < 0x800) return add(0xc0 | code >> 6), follow(0);
    if (code < 0x10000) return add(0xe0 | code >> 12), follow(6), follow(0);
    add(0xf0 | code >> 18), follow(12), follow(6), follow(0);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

namespace {

template <class Kind, class Variant>
const Kind& as(const Variant& value, const char* kind) {
  const Kind* const held = std::get_if<Kind>(&value);
  if (held == nullptr)
    throw Error{Errc::invalid_argument,
                fmt::format("a {} is missing, or something else is in its place", kind)};
  return *held;
}

}  // namespace

JsonValue JsonValue::parse(std::string_view text) { return JsonParser{text}.whole(); }

bool JsonValue::boolean() const { return as<bool>(value_, "truth value"); }
std::int64_t JsonValue::number() const { return as<std::int64_t>(value_, "number"); }
const std::string& JsonValue::text() const { return as<std::string>(value_, "string"); }
const JsonValue::List& JsonValue::list() const { return as<List>(value_, "list"); }
const JsonValue::Object& JsonValue::object() const { return as<Object>(value_, "object"); }

std::vector<std::string> JsonValue::texts() const {
  std::vector<std::string> all;
  for (const JsonValue& value : list()) all.push_back(value.text());
  return all;
}

const JsonValue& JsonValue::operator[](std::string_view name) const {
  static const JsonValue kNull;
  const Object& members = object();
  const auto member = members.find(name);
  return member != members.end() ? member->second : kNull;
}

}  // namespace icecore
