// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in epoll_pwait2, which reads its timeout from memory.  The kernel returns EINTR
// from it when the thread was stopped.
#include <sys/epoll.h>

#include "blocked.hpp"

using namespace target;

static const WaitPipe waited;
static int epoll = -1;

static long wait_for_pipe(long timeout_ms) {
  epoll_event event{};
  const timespec timeout = to_timespec(timeout_ms);
  const long result =
      raw(SYS_epoll_pwait2, epoll, &event, 1, timeout_ms < 0 ? nullptr : &timeout, nullptr, 8);
  expect_untouched(timeout, timeout_ms);
  if (result == 1) waited.drain();
  return result;
}

int main() {
  epoll = static_cast<int>(must(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  epoll_event interest = {.events = EPOLLIN, .data = {}};
  must(::epoll_ctl(epoll, EPOLL_CTL_ADD, waited.ends[0], &interest), "epoll_ctl");
  return serve_wait({.number = SYS_epoll_pwait2,
                     .call = wait_for_pipe,
                     .release = [] { waited.fill(); },
                     .released = 1,
                     .timed_out = 0});
}
