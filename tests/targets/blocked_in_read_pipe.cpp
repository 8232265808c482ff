// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in read on an empty pipe.
#include "blocked.hpp"

using namespace target;

int main() {
  static const WaitPipe waited;
  const auto call = [](long) {
    char byte;
    return raw(SYS_read, waited.ends[0], &byte, 1);
  };
  return serve_wait(
      {.number = SYS_read, .call = call, .release = [] { waited.fill(); }, .released = 1});
}
