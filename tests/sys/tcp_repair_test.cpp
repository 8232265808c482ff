// SPDX-License-Identifier: Apache-2.0
#include "sys/tcp_repair.hpp"

#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/wait.h>

#include "support/tcp_peer.hpp"
#include "sys/files.hpp"

namespace test::tcp_repair_test {

bool can_send(const Descriptor& socket) {
  return ::send(socket.get(), "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

bool receives_a_byte(const Descriptor& socket) {
  char byte;
  return ::recv(socket.get(), &byte, 1, 0) == 1;
}

TEST_CASE("held connections work on when who holds them is killed") {
  const Descriptor listener = listen_at_loopback(AF_INET);
  const Descriptor client{must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
  const int on = 1;
  must(::setsockopt(client.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
  SocketName name = name_of(listener);
  must(::connect(client.get(), name.get(), name.size), "connect");
  const Peer peer{listener};

  const Pipe pipe;
  const pid_t holder = must(::fork(), "fork");
  if (holder == 0) {
    std::vector<icecore::sys::Fd> sockets;
    sockets.push_back(icecore::sys::duplicate(client.get()));
    icecore::sys::HeldConnections held{std::move(sockets), true};
    const icecore::sys::Fd socket = icecore::sys::duplicate(client.get());
    held.read(socket);
    held.fall_silent();
    must(::write(pipe.write_end.get(), "r", 1), "write");
    for (;;) ::pause();
  }
  char ready;
  must(::read(pipe.read_end.get(), &ready, 1), "read");
  CHECK_FALSE(can_send(client));
  ::kill(holder, SIGKILL);
  must(::waitpid(holder, nullptr, 0), "waitpid");

  const Deadline deadline{kPatience};
  while (!can_send(client)) REQUIRE_FALSE(deadline.passed());
  CHECK(receives_a_byte(peer.socket()));
  CHECK(can_send(peer.socket()));
  CHECK(receives_a_byte(client));
  int reuse = 0;
  ::socklen_t size = sizeof reuse;
  must(::getsockopt(client.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, &size), "SO_REUSEADDR");
  CHECK(reuse == 1);
}

TEST_CASE("what the peer has room for counts as sent") {
  // A peer that acknowledges a byte which its other end does not know to have sent is never heard
  // again.
  using icecore::sys::Bytes;
  const auto assumed = [](std::uint32_t window) {
    icecore::sys::TcpConnection connection;
    connection.sent = {1, 2, 3};
    connection.unsent = {4, 5, 6, 7};
    connection.window.to_send = window;
    icecore::sys::assume_sent(connection);
    return std::pair{connection.sent, connection.unsent};
  };
  CHECK(assumed(0) == std::pair{Bytes{1, 2, 3}, Bytes{4, 5, 6, 7}});
  CHECK(assumed(3) == std::pair{Bytes{1, 2, 3}, Bytes{4, 5, 6, 7}});
  CHECK(assumed(5) == std::pair{Bytes{1, 2, 3, 4, 5}, Bytes{6, 7}});
  CHECK(assumed(7) == std::pair{Bytes{1, 2, 3, 4, 5, 6, 7}, Bytes{}});
  CHECK(assumed(UINT32_MAX) == std::pair{Bytes{1, 2, 3, 4, 5, 6, 7}, Bytes{}});
}

}  // namespace test::tcp_repair_test
