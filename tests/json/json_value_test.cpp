// SPDX-License-Identifier: Apache-2.0
#include "json/json_value.hpp"

#include <catch2/catch.hpp>

#include "icecore/error.hpp"
#include "json/json.hpp"

namespace icecore::json_value_test {

TEST_CASE("json that was written is read") {
  const std::string text = "quote \" backslash \\ newline \n bell \a euro \xe2\x82\xac";
  JsonObject object;
  object.add("text", text)
      .add("number", -12)
      .add("yes", true)
      .add("list", std::vector<std::string>{"a", ""})
      .add("inner", JsonObject{}.add("empty", std::vector<std::string>{}));
  const JsonValue value = JsonValue::parse(object.text());
  CHECK(value["text"].text() == text);
  CHECK(value["number"].number() == -12);
  CHECK(value["yes"].boolean());
  CHECK(value["list"].texts() == std::vector<std::string>{"a", ""});
  CHECK(value["inner"]["empty"].list().empty());
  CHECK(value["nothing"].is_null());
}

TEST_CASE("json escapes become their characters") {
  CHECK(JsonValue::parse(R"( "\u0041\u00e9\u20ac\ud83d\ude00\t\/" )").text() ==
        "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\t/");
}

TEST_CASE("json keeps bytes that are not UTF-8 where it is asked to") {
  const std::string text = "a\xff\x80\xe2\x82z\xed\xb3\xbf";  // the last is half a surrogate pair
  CHECK(JsonValue::parse(json_string(text, NotUtf8::kept)).text() == text);
  CHECK(json_string("\xff") == "\"\\ufffd\"");
  JsonObject object{NotUtf8::kept};
  object.add("text", text).add("list", std::vector<std::string>{text});
  CHECK(JsonValue::parse(object.text())["text"].text() == text);
  CHECK(JsonValue::parse(object.text())["list"].texts() == std::vector<std::string>{text});
}

TEST_CASE("what is no json is refused") {
  const std::string text =
      GENERATE("", "{", "[1,]", "{\"a\"}", "1 2", "tru", "\"\\x\"", "\"\\ud800\"", "\"\\u12\"",
               "\"a", "1.5", "99999999999999999999", "{1:2}", "\"\n\"");
  INFO(text);
  CHECK_THROWS_AS(JsonValue::parse(text), Error);
}

TEST_CASE("json that is too deep is refused") {
  CHECK_THROWS_AS(JsonValue::parse(std::string(100'000, '[')), Error);
}

TEST_CASE("json of another kind than asked for is refused") {
  const JsonValue value = JsonValue::parse("[1,\"a\"]");
  CHECK_THROWS_AS(value.number(), Error);
  CHECK_THROWS_AS(value["a"], Error);
  CHECK_THROWS_AS(value.texts(), Error);
}

}  // namespace icecore::json_value_test
