// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "support/descriptor.hpp"
#include "support/patience.hpp"

namespace test {

inline ::sockaddr_in local_address(int port) {
  ::sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

inline Descriptor make_tcp_socket() {
  return Descriptor{must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
}

/// A port of 127.0.0.1 that nobody has at the moment.
inline int free_port() {
  const Descriptor socket = make_tcp_socket();
  ::sockaddr_in address = local_address(0);
  ::socklen_t size = sizeof address;
  must(::bind(socket.get(), reinterpret_cast<::sockaddr*>(&address), size), "bind");
  must(::getsockname(socket.get(), reinterpret_cast<::sockaddr*>(&address), &size), "getsockname");
  return ntohs(address.sin_port);
}

/// Everything that whoever listens says until it hangs up; nothing when nobody listens.
inline std::optional<std::string> talk(int port, const std::string& request) {
  const Descriptor socket = make_tcp_socket();
  const ::sockaddr_in address = local_address(port);
  if (::connect(socket.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address) != 0)
    return std::nullopt;
  must(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL), "send");
  std::string answer;
  const Deadline deadline{kPatience};
  for (char bytes[4096];;) {
    ::pollfd wait{socket.get(), POLLIN, 0};
    if (::poll(&wait, 1, deadline.left_ms()) != 1) throw std::runtime_error{"no answer: " + answer};
    const ssize_t size = ::recv(socket.get(), bytes, sizeof bytes, 0);
    if (size <= 0) return answer;
    answer.append(bytes, static_cast<std::size_t>(size));
  }
}

inline std::string http_get(const std::string& path) {
  return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
}

/// Without the headers of HTTP, if it has them: there is the time in them.
inline std::string http_body(const std::string& answer) {
  const std::size_t end = answer.find("\r\n\r\n");
  return answer.starts_with("HTTP/") && end != std::string::npos ? answer.substr(end + 4) : answer;
}

}  // namespace test
