// SPDX-License-Identifier: Apache-2.0
//
// State: all memory of the process may be merged with the same pages elsewhere.
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

static constexpr int kSetMemoryMerge = 67, kGetMemoryMerge = 68;

int main() {
  try {
    must(::prctl(kSetMemoryMerge, 1, 0, 0, 0), "PR_SET_MEMORY_MERGE");
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  return serve([] { require(::prctl(kGetMemoryMerge, 0, 0, 0, 0) == 1, "PR_GET_MEMORY_MERGE"); });
}
