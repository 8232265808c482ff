// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "support/process.hpp"

namespace test {

/// What a program that has ended said.
struct Outcome {
  int status = 0;  ///< as a shell has it: 128 + N after signal N
  std::string out;
  std::string err;
};

/// Runs a program to its end, with nothing on standard input.
Outcome run(const Arguments& arguments, std::chrono::milliseconds patience = kPatience);

/// Runs the program icecore to its end.
Outcome icecore(Arguments arguments, std::chrono::milliseconds patience = kPatience);

/// Whether a program of that name is in PATH.
bool in_path(const std::string& program);

}  // namespace test
