// SPDX-License-Identifier: Apache-2.0
//
// State: sockets that have one port together, and have taken back what allowed that since: two of
// TCP that listen, two that are only bound, two of UDP; and two of UDP that still allow it.
#include <arpa/inet.h>
#include <sys/socket.h>

#include "target.hpp"

using namespace target;

struct Pair {
  int ends[2] = {};
  std::uint16_t port = 0;
  int reused = 0;  ///< SO_REUSEADDR, as it is to be
};

static std::uint16_t port_of(int socket) {
  sockaddr_in name{};
  socklen_t size = sizeof name;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size), "getsockname");
  return name.sin_port;
}

static void set(int socket, int option, int value) {
  must(::setsockopt(socket, SOL_SOCKET, option, &value, sizeof value), "setsockopt");
}

static int get(int socket, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  must(::getsockopt(socket, SOL_SOCKET, option, &value, &size), "getsockopt");
  return value;
}

static sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = port;
  return address;
}

static Pair make_pair(int type, int option) {
  Pair pair{.reused = option == SO_REUSEADDR ? 1 : 0};
  for (int& end : pair.ends) {
    end = static_cast<int>(must(::socket(AF_INET, type | SOCK_NONBLOCK, 0), "socket"));
    set(end, option, 1);
    const sockaddr_in name = loopback(pair.port);
    must(::bind(end, reinterpret_cast<const sockaddr*>(&name), sizeof name), "bind");
    pair.port = port_of(end);
  }
  return pair;
}

static void take_back(const Pair& pair, int option) {
  for (const int end : pair.ends) set(end, option, 0);
}

/// Whoever connects, or sends, meets one of the two.
static void expect_service(const Pair& pair, int type) {
  const int client = static_cast<int>(must(::socket(AF_INET, type, 0), "socket"));
  const sockaddr_in name = loopback(pair.port);
  must(::connect(client, reinterpret_cast<const sockaddr*>(&name), sizeof name), "connect");
  must(::send(client, "x", 1, 0), "send");
  await(
      [&] {
        for (const int end : pair.ends) {
          char byte;
          const int server = type == SOCK_STREAM ? ::accept(end, nullptr, nullptr) : end;
          const bool heard = type == SOCK_STREAM ? server >= 0 : ::recv(end, &byte, 1, 0) == 1;
          if (heard && type == SOCK_STREAM) {
            const linger reset{.l_onoff = 1, .l_linger = 0};
            must(::setsockopt(server, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), "SO_LINGER");
            ::close(server);
          }
          if (heard) return true;
        }
        return false;
      },
      "nobody is met");
  ::close(client);
}

int main() {
  const Pair listening = make_pair(SOCK_STREAM, SO_REUSEPORT);
  for (const int end : listening.ends) must(::listen(end, 4), "listen");
  const Pair bound = make_pair(SOCK_STREAM, SO_REUSEPORT);
  const Pair datagrams = make_pair(SOCK_DGRAM, SO_REUSEPORT);
  const Pair open = make_pair(SOCK_DGRAM, SO_REUSEADDR);
  for (const Pair& pair : {listening, bound, datagrams}) take_back(pair, SO_REUSEPORT);

  return serve([&] {
    for (const Pair& pair : {listening, bound, datagrams, open})
      for (const int end : pair.ends) {
        require(port_of(end) == pair.port, "another port");
        require(get(end, SO_REUSEPORT) == 0, "SO_REUSEPORT");
        require(get(end, SO_REUSEADDR) == pair.reused, "SO_REUSEADDR");
      }
    expect_service(listening, SOCK_STREAM);
    expect_service(datagrams, SOCK_DGRAM);
    expect_service(open, SOCK_DGRAM);
  });
}
