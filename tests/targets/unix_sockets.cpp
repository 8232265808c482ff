// SPDX-License-Identifier: Apache-2.0
//
// State: sockets of unix(7): pairs of all types with messages and descriptors that wait in them,
// directions shut down, an end whose other end is closed, a connection with a name, options.
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

/// That of the sender, where it may choose: another one than anybody would take by mistake.
static const gid_t kGroup = ::getuid() == 0 ? 4242 : ::getgid();

struct Pair {
  int a, b;
  explicit Pair(int type) {
    int ends[2];
    must(::socketpair(AF_UNIX, type, 0, ends), "socketpair");
    a = ends[0];
    b = ends[1];
  }
};

static void put(int socket, const std::string& text, int passed = -1) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &passed, sizeof(int));
  }
  must(::sendmsg(socket, &message, MSG_DONTWAIT), "sendmsg");
}

static void put_with_credentials(int socket, const std::string& text) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_CREDENTIALS;
  header->cmsg_len = CMSG_LEN(sizeof(ucred));
  const ucred own{::getpid(), ::getuid(), kGroup};
  std::memcpy(CMSG_DATA(header), &own, sizeof own);
  must(::sendmsg(socket, &message, MSG_DONTWAIT), "sendmsg with credentials");
}

/// A message that the process has sent to itself says so.
static void expect_own_credentials(int socket, const std::string& wanted) {
  char text[100];
  iovec part{text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const long size = must(::recvmsg(socket, &message, MSG_DONTWAIT), "recvmsg");
  require(std::string(text, static_cast<std::size_t>(size)) == wanted, "another message");
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  require(header != nullptr && header->cmsg_type == SCM_CREDENTIALS, "without credentials");
  ucred sender{};
  std::memcpy(&sender, CMSG_DATA(header), sizeof sender);
  require(sender.pid == ::getpid(), "sent by process " + std::to_string(sender.pid));
  require(sender.uid == ::getuid() && sender.gid == kGroup, "sent by another user or group");
}

/// One message, and the descriptor that came with it or -1.
static int take(int socket, const std::string& wanted, std::size_t room = 1 << 20) {
  std::string text(room, '\0');
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  text.resize(static_cast<std::size_t>(must(::recvmsg(socket, &message, MSG_DONTWAIT), "recvmsg")));
  require(text == wanted, "received " + text.substr(0, 40) + ", not " + wanted.substr(0, 40));
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int passed;
  std::memcpy(&passed, CMSG_DATA(header), sizeof passed);
  return passed;
}

static void expect_empty(int socket) {
  char byte;
  require(raw(SYS_recvfrom, socket, &byte, 1, MSG_DONTWAIT, 0, 0) == -EAGAIN,
          "not empty, or ended");
}

static std::pair<sockaddr_un, socklen_t> abstract_name(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

static std::string name_of(int socket, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  must(ask(socket, reinterpret_cast<sockaddr*>(&address), &size), "name");
  return {address.sun_path, size - offsetof(sockaddr_un, sun_path)};
}

int main() {
  const Pair stream{SOCK_STREAM}, datagrams{SOCK_DGRAM}, packets{SOCK_SEQPACKET | SOCK_NONBLOCK};
  const Pair passing{SOCK_STREAM}, ended{SOCK_STREAM}, half{SOCK_STREAM};
  std::string long_text;
  for (std::uint64_t n = random_number(); long_text.size() < 150'000; ++n)
    long_text += std::to_string(n);
  int pipe[2];
  must(::pipe(pipe), "pipe");
  must(::write(pipe[1], "in the pipe", 11), "write");

  const std::string name = "icecore-test-" + std::to_string(random_number());
  const auto [address, size] = abstract_name(name);
  const int listener = static_cast<int>(must(::socket(AF_UNIX, SOCK_STREAM, 0), "socket"));
  must(::bind(listener, reinterpret_cast<const sockaddr*>(&address), size), "bind");
  must(::listen(listener, 5), "listen");
  const int client = static_cast<int>(must(::socket(AF_UNIX, SOCK_STREAM, 0), "socket"));
  must(::connect(client, reinterpret_cast<const sockaddr*>(&address), size), "connect");
  const int server = static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept"));
  must(::close(listener), "close");

  const int one = 1, buffer = 30'000;
  must(::setsockopt(packets.b, SOL_SOCKET, SO_PASSCRED, &one, sizeof one), "SO_PASSCRED");
  must(::setsockopt(stream.b, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer), "SO_RCVBUF");

  const auto refill = [&] {
    put(stream.a, long_text);
    put(stream.b, "the other way");
    for (const char* text : {"first", "", "second, longer", "3"}) put(datagrams.a, text);
    put_with_credentials(packets.a, "with credentials");
    put_with_credentials(packets.a, "twice");
    put(passing.a, "with the pipe", pipe[0]);
    put(passing.a, "after");
    put(client, "to the server");
  };
  refill();
  put(ended.a, "the end");
  must(::close(ended.a), "close");
  put(half.a, "last words");
  must(::shutdown(half.a, SHUT_WR), "shutdown");
  bool first = true;

  return serve([&] {
    take(stream.b, long_text);
    take(stream.a, "the other way");
    for (const char* text : {"first", "", "second, longer", "3"}) take(datagrams.b, text);
    expect_own_credentials(packets.b, "with credentials");
    expect_own_credentials(packets.b, "twice");
    const int passed = take(passing.b, "with the pipe", 13);
    require(passed >= 0, "no descriptor came with it");
    char text[11];
    must(::read(passed, text, sizeof text), "read");
    require(std::string(text, 11) == "in the pipe", "another descriptor came with it");
    must(::write(pipe[1], "in the pipe", 11), "write");
    must(::close(passed), "close");
    take(passing.b, "after");
    take(server, "to the server");
    for (const int socket : {stream.a, stream.b, datagrams.a, datagrams.b, packets.a, packets.b,
                             passing.a, passing.b, server, client})
      expect_empty(socket);

    if (first) {
      take(half.b, "last words");
      take(ended.b, "the end");
    }
    first = false;
    char byte;
    require(::recv(half.b, &byte, 1, MSG_DONTWAIT) == 0, "the direction is open again");
    require(raw(SYS_sendto, half.a, "x", 1, MSG_NOSIGNAL, 0, 0) == -EPIPE, "it can be written to");
    put(half.b, "an answer");
    take(half.a, "an answer");
    require(::recv(ended.b, &byte, 1, MSG_DONTWAIT) == 0, "somebody is there again");
    require(raw(SYS_sendto, ended.b, "x", 1, MSG_NOSIGNAL, 0, 0) == -EPIPE, "it can be written to");

    require(name_of(server, ::getsockname) == std::string(1, '\0') + name, "another name");
    require(name_of(client, ::getpeername) == std::string(1, '\0') + name, "another peer");
    int value = 0;
    socklen_t value_size = sizeof value;
    must(::getsockopt(stream.b, SOL_SOCKET, SO_RCVBUF, &value, &value_size), "SO_RCVBUF");
    require(value == 2 * buffer, "another buffer: " + std::to_string(value));
    require((::fcntl(packets.a, F_GETFL) & O_NONBLOCK) != 0, "O_NONBLOCK is gone");
    refill();
  });
}
