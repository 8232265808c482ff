// SPDX-License-Identifier: Apache-2.0
#include "icecore/error.hpp"

#include <catch2/catch.hpp>

namespace icecore::test::error_test {

TEST_CASE("a refusal lists every reason on a line of its own", "[error]") {
  const Error error{Errc::unsupported, "cannot snapshot process 7:", {"fd 3: x", "fd 4: y"}};
  CHECK(std::string{error.what()} == "cannot snapshot process 7:\n  fd 3: x\n  fd 4: y");
  CHECK(error.reasons() == std::vector<std::string>{"fd 3: x", "fd 4: y"});
  CHECK(error.code() == Errc::unsupported);
  CHECK(error.sys_errno() == 0);
}

TEST_CASE("a failure keeps the kernel's number", "[error]") {
  const Error error{Errc::io, "write /x: No space left on device", 28};
  CHECK(error.sys_errno() == 28);
  CHECK(error.reasons().empty());
}

}  // namespace icecore::test::error_test
