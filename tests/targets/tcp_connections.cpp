// SPDX-License-Identifier: Apache-2.0
//
// State: TCP connections of the process with itself: with what waits at both ends, one direction
// shut down, over IPv6, between an IPv4 and a dual-stack socket, much that waits; beside the
// sockets that listen.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "target.hpp"

using namespace target;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  bool operator==(const Address& other) const {
    return size == other.size && std::memcmp(&storage, &other.storage, size) == 0;
  }
};

struct Connection {
  int client = -1;
  int server = -1;
  Address names[4];

  void note() {
    Address now[4];
    names_now(now);
    for (int i = 0; i < 4; ++i) names[i] = now[i];
  }
  void names_now(Address (&now)[4]) {
    must(::getsockname(client, now[0].get(), &now[0].size), "getsockname");
    must(::getpeername(client, now[1].get(), &now[1].size), "getpeername");
    must(::getsockname(server, now[2].get(), &now[2].size), "getsockname");
    must(::getpeername(server, now[3].get(), &now[3].size), "getpeername");
  }
  void expect_names() {
    Address now[4];
    names_now(now);
    for (int i = 0; i < 4; ++i) require(now[i] == names[i], "another address");
  }
};

static int listen_at(int family, const in6_addr& host) {
  const int listener = static_cast<int>(must(::socket(family, SOCK_STREAM, 0), "socket"));
  Address any;
  if (family == AF_INET) {
    auto* const in = reinterpret_cast<sockaddr_in*>(&any.storage);
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    any.size = sizeof *in;
  } else {
    auto* const in = reinterpret_cast<sockaddr_in6*>(&any.storage);
    in->sin6_family = AF_INET6;
    in->sin6_addr = host;
    any.size = sizeof *in;
  }
  must(::bind(listener, any.get(), any.size), "bind");
  must(::listen(listener, 4), "listen");
  return listener;
}

static std::uint16_t port_of(int listener) {
  Address name;
  must(::getsockname(listener, name.get(), &name.size), "getsockname");
  return reinterpret_cast<sockaddr_in*>(&name.storage)->sin_port;
}

static Connection connect_to(int listener, int family) {
  Connection made;
  made.client = static_cast<int>(must(::socket(family, SOCK_STREAM, 0), "socket"));
  if (family == AF_INET) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = port_of(listener);
    must(::connect(made.client, reinterpret_cast<sockaddr*>(&to), sizeof to), "connect");
  } else {
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_addr = in6addr_loopback;
    to.sin6_port = port_of(listener);
    must(::connect(made.client, reinterpret_cast<sockaddr*>(&to), sizeof to), "connect");
  }
  made.server = static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept"));
  made.note();
  return made;
}

static void send_all(int socket, const std::string& text) {
  for (std::size_t sent = 0; sent < text.size();)
    sent += static_cast<std::size_t>(
        must(::send(socket, text.data() + sent, text.size() - sent, MSG_DONTWAIT), "send"));
}

static void expect_text(int socket, const std::string& text) {
  std::string got(text.size(), '?');
  for (std::size_t read = 0; read < got.size();) {
    const auto part = must(::recv(socket, got.data() + read, got.size() - read, 0), "recv");
    require(part > 0, "it ends");
    read += static_cast<std::size_t>(part);
  }
  require(got == text, "another text");
}

static void expect_nothing(int socket) {
  char byte;
  require(raw(SYS_recvfrom, socket, &byte, 1, MSG_DONTWAIT, nullptr, nullptr) == -EAGAIN,
          "something has come, or it ends");
}

static int option(int socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  must(::getsockopt(socket, level, name, &value, &size), "getsockopt");
  return value;
}

int main() {
  in6_addr any = in6addr_any;
  const int v4 = listen_at(AF_INET, any), v6 = listen_at(AF_INET6, in6addr_loopback);
  const int dual = listen_at(AF_INET6, any);
  Connection quiet = connect_to(v4, AF_INET), busy = connect_to(v4, AF_INET);
  Connection half = connect_to(v6, AF_INET6), mixed = connect_to(dual, AF_INET);
  Connection done = connect_to(v4, AF_INET), full = connect_to(v4, AF_INET);
  const int on = 1;
  must(::setsockopt(quiet.client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
  must(::setsockopt(quiet.server, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), "SO_KEEPALIVE");
  must(::fcntl(busy.server, F_SETFL, O_NONBLOCK), "F_SETFL");
  must(::close(v6), "close");  // one whose listener is gone
  const std::string much(50'000, 'm');
  const auto put = [&] {
    send_all(busy.client, "to the server");
    send_all(busy.server, "to the client");
    send_all(mixed.client, "from the old to the new");
  };
  put();
  send_all(half.client, "the last words");
  must(::shutdown(half.client, SHUT_WR), "shutdown");
  must(::shutdown(done.client, SHUT_WR), "shutdown");
  send_all(full.client, much);
  const auto arrived = [&](int socket, std::size_t bytes) {
    std::string text(bytes, '\0');
    await(
        [&] {
          return ::recv(socket, text.data(), bytes, MSG_PEEK | MSG_DONTWAIT) ==
                 static_cast<ssize_t>(bytes);
        },
        "it never arrives");
  };
  arrived(full.server, much.size());

  bool first = true;
  return serve([&] {
    for (Connection* connection : {&quiet, &busy, &half, &mixed, &full}) connection->expect_names();
    require(option(quiet.client, IPPROTO_TCP, TCP_NODELAY) == 1, "TCP_NODELAY");
    require(option(quiet.server, SOL_SOCKET, SO_KEEPALIVE) == 1, "SO_KEEPALIVE");
    for (const int socket : {quiet.client, quiet.server, busy.client, busy.server, v4, dual})
      require(option(socket, SOL_SOCKET, SO_REUSEADDR) == 0, "SO_REUSEADDR");
    for (const int socket : {quiet.client, quiet.server, half.client, full.client})
      expect_nothing(socket);
    expect_text(busy.server, "to the server");
    expect_text(busy.client, "to the client");
    expect_text(mixed.server, "from the old to the new");
    require((::fcntl(busy.server, F_GETFL) & O_NONBLOCK) != 0, "O_NONBLOCK");
    put();
    if (first) {
      expect_text(half.server, "the last words");
      first = false;
    }
    char byte;
    for (const int socket : {half.server, done.server})
      require(must(::recv(socket, &byte, 1, MSG_DONTWAIT), "recv") == 0, "it does not end");
    send_all(half.server, "answer");
    expect_text(half.client, "answer");
    expect_text(full.server, much);
    send_all(full.client, much);
    arrived(full.server, much.size());
    arrived(busy.server, 13);
    arrived(mixed.server, 23);
    arrived(busy.client, 13);

    // The sockets that listen still do.
    for (const int listener : {v4, dual}) {
      Connection fresh = connect_to(listener, AF_INET);
      send_all(fresh.client, "hello");
      expect_text(fresh.server, "hello");
      const linger reset{.l_onoff = 1, .l_linger = 0};
      must(::setsockopt(fresh.client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), "SO_LINGER");
      ::close(fresh.client);
      ::close(fresh.server);
    }
  });
}
