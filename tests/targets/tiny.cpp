// SPDX-License-Identifier: Apache-2.0
//
// State: nothing but a number in memory.  For tests and benches whose subject is not the target.
#include "target.hpp"

extern "C" {
volatile long known_global = 0x1ce;  // printed by debuggers in tests
}

int main() {
  return target::serve([] { target::require(known_global == 0x1ce, "known_global"); });
}
