// SPDX-License-Identifier: Apache-2.0
#include "sys/tcp_repair.hpp"

#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/wait.h>

#include <optional>

#include "support/tcp_peer.hpp"
#include "sys/files.hpp"

namespace test::tcp_repair_test {

Descriptor connect_to(const Descriptor& listener) {
  Descriptor client{must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
  const int on = 1;
  must(::setsockopt(client.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
  SocketName name = name_of(listener);
  must(::connect(client.get(), name.get(), name.size), "connect");
  return client;
}

bool can_send(const Descriptor& socket) {
  return ::send(socket.get(), "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

bool receives_a_byte(const Descriptor& socket) {
  char byte;
  return ::recv(socket.get(), &byte, 1, 0) == 1;
}

TEST_CASE("held connections work on when who holds them is killed") {
  const Descriptor listener = listen_at_loopback(AF_INET);
  const Descriptor client = connect_to(listener);
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

// As one that is paced does until its process is dead.
TEST_CASE("a connection that has sent more since it was read is not stuck") {
  const Descriptor listener = listen_at_loopback(AF_INET);
  const int plenty = 8 << 20;
  must(::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUFFORCE, &plenty, sizeof plenty),
       "SO_RCVBUFFORCE");
  Peer client{connect_to(listener)};
  Peer peer{listener};
  must(::setsockopt(client.socket().get(), IPPROTO_TCP, TCP_CONGESTION, "reno", 4),
       "TCP_CONGESTION");
  must(::setsockopt(client.socket().get(), SOL_SOCKET, SO_SNDBUFFORCE, &plenty, sizeof plenty),
       "SO_SNDBUFFORCE");
  const int at_once = 1;
  must(::setsockopt(client.socket().get(), IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once),
       "TCP_NODELAY");
  for (int i = 0; i < 64; ++i) {  // which opens the peer's window
    client.send(50'000);
    peer.receive(50'000);
  }
  const auto send_unheard = [&](int bytes) {
    const int wanted = peer.waiting() + bytes;
    client.send(static_cast<std::size_t>(bytes));
    const Deadline deadline{kPatience};
    while (peer.waiting() < wanted) REQUIRE_FALSE(deadline.passed());
  };
  // No acknowledgement comes any more: more is under way than a fresh connection may send.
  ::sock_filter nothing{BPF_RET | BPF_K, 0, 0, 0};
  const ::sock_fprog program{1, &nothing};
  must(::setsockopt(client.socket().get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program),
       "SO_ATTACH_FILTER");
  send_unheard(400'000);

  namespace sys = icecore::sys;
  sys::Fd socket = sys::duplicate(client.socket().get());
  const sys::Bytes local = sys::local_address(socket), remote = sys::remote_address(socket);
  std::vector<sys::Fd> sockets;
  sockets.push_back(sys::duplicate(client.socket().get()));
  std::optional<sys::HeldConnections> held{std::in_place, std::move(sockets), true};
  sys::TcpConnection connection = held->read(socket);
  REQUIRE(connection.sent.size() == 400'000);
  const std::string more = client.next(200'000);
  connection.unsent.assign(more.begin(), more.end());
  send_unheard(200'000);
  held->fall_silent();
  held->forget();
  held.reset();
  socket = sys::Fd{};
  client = Peer{Descriptor{must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")}};

  sys::assume_sent(connection);
  CHECK(connection.sent.size() == 600'000);
  const sys::Fd again = sys::duplicate(client.socket().get());
  REQUIRE(sys::try_repair(again, local, remote, connection) == 0);
  sys::let_talk(again, connection, true, false);
  peer.receive(600'000);
  peer.send(1000);
  client.receive(1000);
  CHECK(can_send(client.socket()));
  CHECK(receives_a_byte(peer.socket()));
}

}  // namespace test::tcp_repair_test
