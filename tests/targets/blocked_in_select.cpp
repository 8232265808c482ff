// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in select on a pipe, without end or with a time.
#include <sys/select.h>

#include "blocked.hpp"

using namespace target;

static const WaitPipe waited;

static long wait_for_pipe(long timeout_ms) {
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(waited.ends[0], &readable);
  timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
  const long result = raw(SYS_select, waited.ends[0] + 1, &readable, nullptr, nullptr,
                          timeout_ms < 0 ? nullptr : &timeout);
  if (result == 1) waited.drain();
  return result;
}

int main() {
  return serve_wait({.number = SYS_select,
                     .call = wait_for_pipe,
                     .release = [] { waited.fill(); },
                     .released = 1,
                     .timed_out = 0});
}
