// SPDX-License-Identifier: Apache-2.0
//
// --json prints one object that a JSON parser accepts, with units in its field names.
#include <catch2/catch.hpp>

#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::json_test {

constexpr const char* kPython = "/usr/bin/python3";

/// What a Python expression over the parsed object `o` gives; "error: …" when it does not parse.
std::string evaluate(const std::string& json, const std::string& expression) {
  const Outcome outcome =
      run({kPython, "-c", "import json, sys; o = json.loads(sys.argv[1]); print(eval(sys.argv[2]))",
           json, expression});
  std::string out = outcome.status == 0 ? outcome.out : "error: " + outcome.err;
  while (out.ends_with('\n')) out.pop_back();
  return out;
}

TEST_CASE("json output is one object") {
  if (::access(kPython, X_OK) != 0) return skip("needs /usr/bin/python3");
  TemporaryFolder folder;
  const std::string image = folder / "image \"1\"";  // must be escaped
  Target target{"thread_names"};
  const std::string pid = std::to_string(target.pid());

  const Outcome taken = icecore({"snapshot", pid, "-o", image, "--json"});
  INFO(taken.out << taken.err);
  REQUIRE(taken.status == 0);
  CHECK(evaluate(taken.out, "o['image']") == image);
  CHECK(evaluate(taken.out, "o['pid']") == pid);
  CHECK(evaluate(taken.out, "o['threads']") == "7");
  CHECK(evaluate(taken.out, "0 < o['frozen_us'] <= o['total_us']") == "True");
  CHECK(evaluate(taken.out, "o['image_bytes'] > 4096 * o['stored_pages'] > 0") == "True");

  const Outcome inspected = icecore({"inspect", image, "--json"});
  CHECK(evaluate(inspected.out, "o['pid']") == pid);
  CHECK(evaluate(inspected.out, "'a) S 1 (b' in [t['name'] for t in o['threads']]") == "True");
  CHECK(evaluate(inspected.out, "'line\\nbreak' in [t['name'] for t in o['threads']]") == "True");

  const Outcome verified = icecore({"verify", image, "--json"});
  CHECK(verified.status == 0);
  CHECK(evaluate(verified.out, "type(o)") == "<class 'dict'>");

  const Outcome checked = icecore({"check", image, "--json"});
  INFO(checked.out);
  CHECK(evaluate(checked.out, "type(o['restorable'])") == "<class 'bool'>");
}

TEST_CASE("json output describes a failure") {
  if (::access(kPython, X_OK) != 0) return skip("needs /usr/bin/python3");
  TemporaryFolder folder;
  Target target{"refused_states", {folder.path(), "pidfd", "userfaultfd"}};
  const Outcome refused =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image", "--json"});
  CHECK(refused.status == 1);
  CHECK(evaluate(refused.out, "o['error']['code']") == "unsupported");
  CHECK(evaluate(refused.out, "len(o['error']['reasons'])") == "2");
  CHECK(target.running());
}

TEST_CASE("restore --json leaves standard output to the process") {
  if (::access(kPython, X_OK) != 0) return skip("needs /usr/bin/python3");
  TemporaryFolder folder;
  Target target{"tiny"};
  REQUIRE(icecore({"snapshot", std::to_string(target.pid()), "--kill", "-o", folder / "image"})
              .status == 0);
  target.process().await_end();
  const Outcome restored =
      icecore({"restore", folder / "image", "--json"});  // ends at once: no input
  INFO(restored.err);
  CHECK(restored.status == 0);
  CHECK(restored.out == "");
  CHECK(evaluate(restored.err, "o['pid']") == std::to_string(target.pid()));
  CHECK(evaluate(restored.err, "o['total_us'] > 0") == "True");
}

}  // namespace test::json_test
