// SPDX-License-Identifier: Apache-2.0
//
// State: a TCP connection with another process: outside_connection ADDRESS PORT.  An IPv4 address
// that begins with ::ffff: is reached by a socket of IPv6.  Both ends send the bytes of one
// pattern, so that one lost, doubled or out of its place shows.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "target.hpp"

using namespace target;

static int connect_to(const std::string& host, int port) {
  const bool old = host.find(':') == std::string::npos;
  sockaddr_storage storage{};
  auto* const in = reinterpret_cast<sockaddr_in*>(&storage);
  auto* const in6 = reinterpret_cast<sockaddr_in6*>(&storage);
  void* const address = old ? static_cast<void*>(&in->sin_addr) : &in6->sin6_addr;
  storage.ss_family = old ? AF_INET : AF_INET6;
  in->sin_port = htons(static_cast<std::uint16_t>(port));
  require(::inet_pton(storage.ss_family, host.c_str(), address) == 1, "no address");
  const int made = static_cast<int>(must(::socket(storage.ss_family, SOCK_STREAM, 0), "socket"));
  const int on = 1;
  must(::setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
  must(::connect(made, reinterpret_cast<sockaddr*>(&storage), old ? sizeof *in : sizeof *in6),
       "connect");
  return made;
}

static std::string bytes_from(std::uint64_t first, std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(pattern(1, first + i));
  return bytes;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const int socket = connect_to(argv[1], std::atoi(argv[2]));
  std::uint64_t sent = 0, received = 0;

  // As much as there is room for.
  const auto send = [&](const std::string& count) {
    const std::string bytes = bytes_from(sent, std::stoul(count));
    std::size_t done = 0;
    while (done < bytes.size()) {
      const long part = raw(SYS_sendto, socket, bytes.data() + done, bytes.size() - done,
                            MSG_DONTWAIT | MSG_NOSIGNAL, nullptr, 0);
      if (part == -EAGAIN) break;
      require(part > 0, "send: error " + std::to_string(-part));
      done += static_cast<std::size_t>(part);
    }
    sent += done;
    return std::to_string(done);
  };
  const auto receive = [&](const std::string& count) {
    std::string bytes(std::stoul(count), '\0');
    for (std::size_t done = 0; done < bytes.size();) {
      const long part = must(::recv(socket, bytes.data() + done, bytes.size() - done, 0), "recv");
      require(part > 0, "it ends");
      done += static_cast<std::size_t>(part);
    }
    require(bytes == bytes_from(received, bytes.size()), "other bytes");
    received += bytes.size();
    return std::string{"ok"};
  };
  const auto option = [&](int level, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    must(::getsockopt(socket, level, name, &value, &size), "getsockopt");
    return std::to_string(value);
  };
  return serve([] {},
               {{"send", send},
                {"receive", receive},
                {"end",
                 [&](auto&) {
                   must(::shutdown(socket, SHUT_WR), "shutdown");
                   return "ok";
                 }},
                {"next?",  // "end", "nothing", or what is wrong with it
                 [&](auto&) -> std::string {
                   char byte;
                   const long got = raw(SYS_recvfrom, socket, &byte, 1, MSG_DONTWAIT, nullptr, 0);
                   if (got == 0) return "end";
                   return got == -EAGAIN ? "nothing" : got == 1 ? "a byte" : ::strerror(-got);
                 }},
                {"state?",
                 [&](auto&) {
                   tcp_info info{};
                   socklen_t size = sizeof info;
                   must(::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
                   return std::to_string(info.tcpi_state);
                 }},
                {"reuse?", [&](auto&) { return option(SOL_SOCKET, SO_REUSEADDR); }},
                {"agreed?", [&](auto&) {
                   tcp_info info{};
                   socklen_t size = sizeof info;
                   must(::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
                   return std::to_string(info.tcpi_options & 7) + " " +
                          std::to_string(info.tcpi_snd_wscale) + " " +
                          std::to_string(info.tcpi_rcv_wscale) + " " +
                          std::to_string(info.tcpi_snd_mss);
                 }}});
}
