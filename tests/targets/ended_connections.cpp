// SPDX-License-Identifier: Apache-2.0
//
// State: TCP sockets whose connection is over: both ends of one that ended in order, with something
// that waits to be read; one that was reset, with something to be read before that is told; one
// that has been told.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "target.hpp"

using namespace target;

struct Connection {
  int client, server;

  explicit Connection(int family) {
    const int listener = static_cast<int>(must(::socket(family, SOCK_STREAM, 0), "socket"));
    sockaddr_storage name{};
    name.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET)
      reinterpret_cast<sockaddr_in*>(&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
      reinterpret_cast<sockaddr_in6*>(&name)->sin6_addr = in6addr_loopback;
    socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    auto* const at = reinterpret_cast<sockaddr*>(&name);
    must(::bind(listener, at, size), "bind");
    must(::listen(listener, 1), "listen");
    must(::getsockname(listener, at, &size), "getsockname");
    client = static_cast<int>(must(::socket(family, SOCK_STREAM, 0), "socket"));
    const int room = 200'000;
    must(::setsockopt(client, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), "SO_RCVBUF");
    must(::connect(client, at, size), "connect");
    server = static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept"));
    must(::close(listener), "close");
  }

  void reset_by_server() {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    must(::setsockopt(server, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), "SO_LINGER");
    must(::close(server), "close");
  }
};

static void send_all(int socket, const std::string& text) {
  for (std::size_t sent = 0; sent < text.size();)
    sent += static_cast<std::size_t>(
        must(::send(socket, text.data() + sent, text.size() - sent, 0), "send"));
}

static int state_of(int socket) {
  tcp_info info{};
  socklen_t size = sizeof info;
  must(::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
  return info.tcpi_state;
}

static void await_close(int socket) {
  await([&] { return state_of(socket) == TCP_CLOSE; }, "the connection does not end");
}

static void expect_end(int socket) {
  char byte;
  require(raw(SYS_read, socket, &byte, 1) == 0, "it does not end in order");
  require(raw(SYS_sendto, socket, "x", 1, MSG_NOSIGNAL, 0, 0) == -EPIPE, "it can be written to");
}

int main() {
  const Connection ended{AF_INET}, ended_6{AF_INET6};
  Connection reset{AF_INET}, told{AF_INET};
  must(::send(ended.client, "last words", 10, 0), "send");
  const std::string much(150'000, 'm');
  send_all(ended_6.server, much);
  for (const Connection& over : {ended, ended_6}) {
    must(::shutdown(over.client, SHUT_WR), "shutdown");
    must(::shutdown(over.server, SHUT_WR), "shutdown");
    await_close(over.client);
    await_close(over.server);
  }
  must(::send(reset.server, "before", 6, 0), "send");
  reset.reset_by_server();
  told.reset_by_server();
  await_close(told.client);
  await_close(reset.client);
  char byte;
  require(raw(SYS_read, told.client, &byte, 1) == -ECONNRESET, "it was not reset");
  bool first = true;

  return serve([=]() mutable {
    char text[16];
    if (first) {
      require(must(::read(ended.server, text, sizeof text), "read") == 10 &&
                  std::string(text, 10) == "last words",
              "other last words");
      std::string got(much.size(), '?');
      require(must(::recv(ended_6.client, got.data(), got.size(), MSG_WAITALL), "recv") ==
                      static_cast<long>(much.size()) &&
                  got == much,
              "much has changed");
      require(must(::read(reset.client, text, sizeof text), "read") == 6 &&
                  std::string(text, 6) == "before",
              "another text before the reset");
      require(raw(SYS_read, reset.client, text, 1) == -ECONNRESET, "it was not reset");
    }
    first = false;
    for (const int socket :
         {ended.client, ended.server, ended_6.client, ended_6.server, told.client, reset.client})
      expect_end(socket);
  });
}
