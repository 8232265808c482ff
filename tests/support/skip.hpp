// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <catch2/catch.hpp>

#include <iostream>
#include <string>

namespace test {

/// How many tests of this run were skipped, whole or in part.
inline int skipped = 0;

/// Says that something cannot be tested here, and why.  The line is what ctest looks for.
inline void skip(const std::string& reason) {
  ++skipped;
  std::cout << "SKIPPED: " << Catch::getResultCapture().getCurrentTestName() << ": " << reason
            << std::endl;
  WARN("SKIPPED: " << reason);
}

}  // namespace test
