// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in recv from a socket with SO_RCVTIMEO.  The kernel returns EINTR from it when
// the thread was stopped, and begins the timeout anew when the call is made again.
#include <sys/socket.h>

#include "blocked.hpp"

using namespace target;

namespace {

struct Sockets {
  int ends[2];
  Sockets() { must(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair"); }
};
const Sockets endless, timed;

long receive(long timeout_ms) {
  char byte;
  if (timeout_ms < 0) return raw(SYS_recvfrom, endless.ends[0], &byte, 1, 0, nullptr, nullptr);
  const timeval wanted{timeout_ms / 1000, timeout_ms % 1000 * 1000};
  must(::setsockopt(timed.ends[0], SOL_SOCKET, SO_RCVTIMEO, &wanted, sizeof wanted), "timeout");
  const long result = raw(SYS_recvfrom, timed.ends[0], &byte, 1, 0, nullptr, nullptr);
  timeval now{};
  socklen_t size = sizeof now;
  must(::getsockopt(timed.ends[0], SOL_SOCKET, SO_RCVTIMEO, &now, &size), "timeout");
  expect_untouched({now.tv_sec, now.tv_usec * 1000}, timeout_ms);
  return result;
}

}  // namespace

int main() {
  return serve_wait({.number = SYS_recvfrom,
                     .call = receive,
                     .release = [] { must(::write(endless.ends[1], "x", 1), "write"); },
                     .released = 1,
                     .timed_out = -EAGAIN});
}
