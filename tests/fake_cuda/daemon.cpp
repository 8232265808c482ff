// SPDX-License-Identifier: Apache-2.0
//
// The test driver's side of gpud, which has all device memory.
#include <sys/socket.h>
#include <sys/un.h>

#include "process.hpp"
#include "raw.hpp"

namespace fake {
namespace {

std::mutex wire;

}  // namespace

int connect_daemon() {
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::size_t at = 0;
  for (const char* c = self.folder; *c != '\0'; ++c) address.sun_path[at++] = *c;
  for (const char* c = "/gpud"; *c != '\0'; ++c) address.sun_path[at++] = *c;
  const long socket = raw(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  if (raw(SYS_connect, socket, as_long(&address), sizeof address) != 0) {
    raw(SYS_close, socket);
    return -1;
  }
  return static_cast<int>(socket);
}

std::int32_t order_raw(const OrderMessage& order, ReplyMessage& reply) {
  if (raw(SYS_sendto, self.socket, as_long(&order), sizeof order, MSG_NOSIGNAL) != sizeof order)
    return 999;
  std::size_t got = 0;
  while (got < sizeof reply) {
    const long count = raw(SYS_read, self.socket, as_long(reinterpret_cast<char*>(&reply) + got),
                           static_cast<long>(sizeof reply - got));
    if (count <= 0) return 999;
    got += static_cast<std::size_t>(count);
  }
  return reply.result;
}

Result order(const OrderMessage& message, ReplyMessage& reply) {
  const std::lock_guard lock{wire};
  return static_cast<Result>(order_raw(message, reply));
}

Result order(const OrderMessage& message) {
  ReplyMessage reply{};
  return order(message, reply);
}

}  // namespace fake
