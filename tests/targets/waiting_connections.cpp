// SPDX-License-Identifier: Apache-2.0
//
// State: connections of the process with itself over unix(7) that wait to be accepted: two at one
// listening socket, in their order, the second with a name; one of packets.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

struct Name {
  sockaddr_un address{};
  socklen_t size = 0;
  explicit Name(const std::string& text) {
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, text.data(), text.size());
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

static int make(int type) { return static_cast<int>(must(::socket(AF_UNIX, type, 0), "socket")); }

static int listen_at(int type, const Name& name) {
  const int listener = make(type);
  must(::bind(listener, name.get(), name.size), "bind");
  must(::listen(listener, 5), "listen");
  return listener;
}

static int connect_to(int type, const Name& name) {
  const int client = make(type);
  must(::connect(client, name.get(), name.size), "connect");
  return client;
}

static int accept(int listener) {
  pollfd ask{listener, POLLIN, 0};
  require(::poll(&ask, 1, 0) == 1, "nobody waits to be accepted");
  return static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept"));
}

static void expect_connected(int client, int server) {
  must(::send(client, "there", 5, MSG_DONTWAIT), "send");
  char text[5];
  must(::recv(server, text, 5, MSG_DONTWAIT), "recv");
  require(std::string(text, 5) == "there", "another text");
  must(::send(server, "again", 5, MSG_DONTWAIT), "send");
  must(::recv(client, text, 5, MSG_DONTWAIT), "recv");
  require(std::string(text, 5) == "again", "another text");
}

int main() {
  const std::string unique = "icecore-test-" + std::to_string(random_number());
  const Name stream_name{unique + "-stream"}, packet_name{unique + "-packets"};
  const Name client_name{unique + "-client"};
  const int streams = listen_at(SOCK_STREAM, stream_name);
  const int packets = listen_at(SOCK_SEQPACKET, packet_name);
  int first = -1, second = -1, third = -1;
  const auto connect_all = [&] {
    third = connect_to(SOCK_SEQPACKET, packet_name);
    first = connect_to(SOCK_STREAM, stream_name);
    second = make(SOCK_STREAM);
    must(::bind(second, client_name.get(), client_name.size), "bind");
    must(::connect(second, stream_name.get(), stream_name.size), "connect");
  };
  connect_all();

  return serve([&] {
    pollfd ask{first, POLLIN | POLLRDHUP, 0};
    require(::poll(&ask, 1, 0) == 0, "the connection is hung up");
    const int one = accept(streams), two = accept(streams), three = accept(packets);
    sockaddr_un name{};
    socklen_t size = sizeof name;
    must(::getpeername(two, reinterpret_cast<sockaddr*>(&name), &size), "getpeername");
    require(size == client_name.size && std::memcmp(&name, client_name.get(), size) == 0,
            "accepted in another order");
    expect_connected(first, one);
    expect_connected(second, two);
    expect_connected(third, three);
    for (const int socket : {first, second, third, one, two, three}) must(::close(socket), "close");
    connect_all();
  });
}
