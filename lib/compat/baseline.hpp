// SPDX-License-Identifier: Apache-2.0
#pragma once

// CPU baselines: "x86-64-v2", "-v3" and "-v4" of the System V ABI.  A program that is kept from
// using more fits more machines.
//
// Nothing can keep a program from an instruction that the CPU has; what can be done is to tell
// those who choose at run time (glibc, OpenBLAS, oneDNN, PyTorch, NumPy, OpenSSL), by their own
// variables.

#include <string>
#include <string_view>
#include <vector>

namespace icecore {

/// Throws Errc::invalid_argument when there is no such baseline; the empty one is no baseline.
void check_baseline(std::string_view baseline);

/// Of `features` those that a program under this baseline may use: all but the vector extensions
/// beyond it.
std::vector<std::string> features_within(std::string_view baseline,
                                         std::vector<std::string> features);

}  // namespace icecore
