// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include "target.hpp"

namespace target {

/// Starts the program again with clocks that are days ahead of the machine's, and without its first
/// argument.
inline void go_ahead(char** arguments) {
  must(::unshare(CLONE_NEWTIME), "unshare");
  const int offsets = static_cast<int>(
      must(::open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC), "timens_offsets"));
  const std::string days = "monotonic 864000 5\nboottime 1728000 7\n";
  must(::write(offsets, days.data(), days.size()), "timens_offsets");
  ::close(offsets);
  arguments[1] = nullptr;
  ::execv("/proc/self/exe", arguments);
}

}  // namespace target
