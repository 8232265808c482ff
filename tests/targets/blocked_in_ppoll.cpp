// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in ppoll on a pipe, with a signal mask that holds only inside the call.
#include <poll.h>

#include <csignal>

#include "blocked.hpp"

using namespace target;

static const WaitPipe waited;

static long wait_for_pipe(long timeout_ms) {
  pollfd entry = {waited.ends[0], POLLIN, 0};
  timespec timeout = to_timespec(timeout_ms);
  const std::uint64_t inside = 1u << (SIGUSR1 - 1), outside = 1u << (SIGUSR2 - 1);
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, nullptr, 8), "set the mask");
  const long result = raw(SYS_ppoll, &entry, 1, timeout_ms < 0 ? nullptr : &timeout, &inside, 8);
  std::uint64_t after = 0;
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, nullptr, &after, 8), "get the mask");
  if (after != outside) return -EPROTO;
  if (result == 1) waited.drain();
  return result;
}

int main() {
  return serve_wait({.number = SYS_ppoll,
                     .call = wait_for_pipe,
                     .release = [] { waited.fill(); },
                     .released = 1,
                     .timed_out = 0});
}
