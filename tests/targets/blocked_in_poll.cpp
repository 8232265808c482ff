// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in poll on a pipe, without end or with a time.
#include <poll.h>

#include "blocked.hpp"

using namespace target;

int main() {
  static const WaitPipe waited;
  const auto call = [](long timeout_ms) {
    pollfd entry = {waited.ends[0], POLLIN, 0};
    const long result = raw(SYS_poll, &entry, 1, static_cast<int>(timeout_ms));
    if (result == 1) waited.drain();
    return result;
  };
  return serve_wait({.number = SYS_poll,
                     .call = call,
                     .release = [] { waited.fill(); },
                     .released = 1,
                     .timed_out = 0});
}
