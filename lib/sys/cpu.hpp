// SPDX-License-Identifier: Apache-2.0
#pragma once

// CPUID, as far as a process can come to depend on it.
//
// Facts relied on here:
//  * The uncompacted XSAVE area has each component at an offset that CPUID 0xD tells and that
//    differs between makers of CPUs; its size covers all components that XCR0 enables.
//  * The kernel's names in /proc/cpuinfo leave out what the kernel has switched off.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace icecore::sys {

struct XsaveLayout {
  std::uint32_t size_bytes = 0;
  std::uint64_t components = 0;  ///< XCR0
  std::array<std::uint32_t, 64> offsets{};
};
XsaveLayout xsave_layout();

/// Names, as in /proc/cpuinfo and sorted, of the features here that add instructions.  Others
/// (ERMS: string moves are fast) change what is fast, not what works.
std::vector<std::string> instruction_features();

/// Number of CPUs that this thread may use.
unsigned usable_cpus();

}  // namespace icecore::sys
