// SPDX-License-Identifier: Apache-2.0
//
// State: sockets of unix(7) whose names are relative to the working directory FOLDER: one that
// listens, a connection that it accepted, datagrams with a sender and one that waits.
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

static int make(int type) { return static_cast<int>(must(::socket(AF_UNIX, type, 0), "socket")); }

static sockaddr_un address(const std::string& name) {
  sockaddr_un result{};
  result.sun_family = AF_UNIX;
  std::memcpy(result.sun_path, name.data(), name.size());
  return result;
}

static const sockaddr* generic(const sockaddr_un& name) {
  return reinterpret_cast<const sockaddr*>(&name);
}

static std::string name_of(int socket) {
  sockaddr_un name{};
  socklen_t size = sizeof name;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size), "getsockname");
  return name.sun_path;
}

static void expect(int from, int to, const std::string& text) {
  must(::send(from, text.data(), text.size(), MSG_NOSIGNAL), "send");
  std::string received(text.size(), '\0');
  must(::recv(to, received.data(), received.size(), MSG_DONTWAIT), "recv");
  require(received == text, "received " + received);
}

int main(int, char** arguments) {
  must(::chdir(arguments[1]), "chdir");
  const sockaddr_un stream_name = address("stream"), datagram_name = address("./datagrams");
  const int listener = make(SOCK_STREAM), datagrams = make(SOCK_DGRAM), sender = make(SOCK_DGRAM);
  must(::bind(listener, generic(stream_name), sizeof stream_name), "bind");
  must(::listen(listener, 5), "listen");
  const int client = make(SOCK_STREAM);
  must(::connect(client, generic(stream_name), sizeof stream_name), "connect");
  const int server = static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept"));
  must(::bind(datagrams, generic(datagram_name), sizeof datagram_name), "bind");
  must(::connect(sender, generic(datagram_name), sizeof datagram_name), "connect");
  must(::send(sender, "it waits", 8, 0), "send");

  return serve([&] {
    require(name_of(listener) == "stream" && name_of(server) == "stream", "another name");
    require(name_of(datagrams) == "./datagrams", "another name of the datagrams");
    expect(client, server, "there");
    expect(server, client, "and back");
    char text[8];
    must(::recv(datagrams, text, sizeof text, MSG_DONTWAIT), "recv");
    require(std::string(text, 8) == "it waits", "another datagram");
    must(::send(sender, "it waits", 8, 0), "send");
    const int late = make(SOCK_STREAM);
    must(::connect(late, generic(stream_name), sizeof stream_name), "connect again");
    ::close(late);
    ::close(static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept again")));
  });
}
