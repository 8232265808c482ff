// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in semtimedop on the set SEMAPHORES.  The kernel returns EINTR from it when the
// thread was stopped.
#include <sys/ipc.h>
#include <sys/sem.h>

#include "blocked.hpp"

using namespace target;

static int set_id = 0;

static long take(long timeout_ms) {
  sembuf down = {0, -1, 0};
  const timespec timeout = to_timespec(timeout_ms);
  const long result = raw(SYS_semtimedop, set_id, &down, 1, timeout_ms < 0 ? nullptr : &timeout);
  expect_untouched(timeout, timeout_ms);
  return result;
}

static void give() {
  sembuf up = {0, 1, 0};
  must(::semop(set_id, &up, 1), "semop");
}

int main(int, char** arguments) {
  set_id = std::atoi(arguments[1]);
  return serve_wait({.number = SYS_semtimedop,
                     .call = take,
                     .release = give,
                     .released = 0,
                     .timed_out = -EAGAIN});
}
