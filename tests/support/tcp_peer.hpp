// SPDX-License-Identifier: Apache-2.0
#pragma once

// The other end of a target's TCP connection, in the test itself.

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "support/descriptor.hpp"
#include "support/patience.hpp"

namespace test {

struct SocketName {
  ::sockaddr_storage storage{};
  ::socklen_t size = sizeof storage;
  ::sockaddr* get() { return reinterpret_cast<::sockaddr*>(&storage); }
  int port() const {
    return ntohs(reinterpret_cast<const ::sockaddr_in*>(&storage)->sin_port);  // of both families
  }
};

/// 127.0.0.1 or ::1, any port.
inline SocketName loopback(int family) {
  SocketName name;
  name.storage.ss_family = static_cast<::sa_family_t>(family);
  if (family == AF_INET) {
    reinterpret_cast<::sockaddr_in*>(&name.storage)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    name.size = sizeof(::sockaddr_in);
  } else {
    reinterpret_cast<::sockaddr_in6*>(&name.storage)->sin6_addr = in6addr_loopback;
    name.size = sizeof(::sockaddr_in6);
  }
  return name;
}

inline Descriptor listen_at_loopback(int family) {
  Descriptor listener{must(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
  SocketName name = loopback(family);
  must(::bind(listener.get(), name.get(), name.size), "bind");
  must(::listen(listener.get(), 4), "listen");
  return listener;
}

inline SocketName name_of(const Descriptor& socket) {
  SocketName name;
  must(::getsockname(socket.get(), name.get(), &name.size), "getsockname");
  return name;
}

inline SocketName peer_of(const Descriptor& socket) {
  SocketName name;
  must(::getpeername(socket.get(), name.get(), &name.size), "getpeername");
  return name;
}

/// As long as this lives, what comes for an address that nobody has a connection at is dropped
/// instead of answered with a reset: what a firewall would do between the end of a process and its
/// restore.  A socket listens there with a filter that lets nothing through.
class QuietAddress {
 public:
  explicit QuietAddress(SocketName name)
      : socket_(must(::socket(name.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")) {
    const int on = 1;
    must(::setsockopt(socket_.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof on), "TCP_REPAIR");
    must(::bind(socket_.get(), name.get(), name.size), "bind");
    ::sock_filter nothing{BPF_RET | BPF_K, 0, 0, 0};
    const ::sock_fprog program{1, &nothing};
    must(::setsockopt(socket_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program),
         "SO_ATTACH_FILTER");
    must(::listen(socket_.get(), 1), "listen");
  }

 private:
  Descriptor socket_;
};

/// Sends and expects the bytes of the pattern that tests/targets/outside_connection.cpp has.
class Peer {
 public:
  explicit Peer(const Descriptor& listener)
      : socket_(must(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept")) {}

  const Descriptor& socket() const { return socket_; }

  /// All of it, into what room there is.
  void send(std::size_t count) {
    const std::string bytes = bytes_from(sent_, count);
    for (std::size_t done = 0; done < count;)
      done += static_cast<std::size_t>(must(
          ::send(socket_.get(), bytes.data() + done, count - done, MSG_NOSIGNAL | MSG_DONTWAIT),
          "send"));
    sent_ += count;
  }

  /// Throws when they are others, or do not come.
  void receive(std::size_t count) {
    std::string bytes(count, '\0');
    const Deadline deadline{kPatience};
    for (std::size_t done = 0; done < count;) {
      wait_for_input(deadline);
      const auto part =
          must(::recv(socket_.get(), bytes.data() + done, count - done, MSG_DONTWAIT), "recv");
      if (part == 0) throw std::runtime_error{"the connection ends"};
      done += static_cast<std::size_t>(part);
    }
    if (bytes != bytes_from(received_, count)) throw std::runtime_error{"other bytes"};
    received_ += count;
  }

  /// Waits until all that was sent has been acknowledged.
  bool all_acknowledged() const {
    ::tcp_info info{};
    ::socklen_t size = sizeof info;
    must(::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
    return info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0;
  }

  void end() { must(::shutdown(socket_.get(), SHUT_WR), "shutdown"); }

  /// True at an orderly end; throws for a reset or when there are bytes.
  bool receives_end() {
    wait_for_input(Deadline{kPatience});
    char byte;
    return must(::recv(socket_.get(), &byte, 1, MSG_DONTWAIT), "recv") == 0;
  }

  /// Neither byte nor end nor reset has come.
  bool hears_nothing() const {
    ::pollfd ask{socket_.get(), POLLIN | POLLRDHUP, 0};
    return ::poll(&ask, 1, 0) == 0;
  }

 private:
  static std::uint64_t pattern(std::uint64_t seed, std::uint64_t index) {
    std::uint64_t mixed = seed + index * 0x9e3779b97f4a7c15;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }
  static std::string bytes_from(std::uint64_t first, std::size_t count) {
    std::string bytes(count, '\0');
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(pattern(1, first + i));
    return bytes;
  }
  void wait_for_input(const Deadline& deadline) const {
    ::pollfd ask{socket_.get(), POLLIN, 0};
    if (::poll(&ask, 1, deadline.left_ms()) != 1) throw std::runtime_error{"nothing comes"};
  }

  Descriptor socket_;
  std::uint64_t sent_ = 0, received_ = 0;
};

}  // namespace test
