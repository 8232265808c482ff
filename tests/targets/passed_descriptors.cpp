// SPDX-License-Identifier: Apache-2.0
//
// State: descriptors that wait in sockets of unix(7) and are open nowhere else, in FOLDER: files,
// an end of a pipe whose other end is open, a whole pipe, a socket with such descriptors in it, a
// socket with a name that waits in itself.
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

struct Pair {
  int a, b;
  explicit Pair(int type) {
    int ends[2];
    must(::socketpair(AF_UNIX, type, 0, ends), "socketpair");
    a = ends[0];
    b = ends[1];
  }
};

/// The sender keeps nothing.
static void give(int socket, std::vector<int> descriptors) {
  char byte = '.';
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  const std::size_t bytes = descriptors.size() * sizeof(int);
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(bytes);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(bytes);
  std::memcpy(CMSG_DATA(header), descriptors.data(), bytes);
  must(::sendmsg(socket, &message, MSG_DONTWAIT), "sendmsg");
  for (const int descriptor : descriptors) must(::close(descriptor), "close");
}

static std::vector<int> take(int socket) {
  char byte;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  must(::recvmsg(socket, &message, MSG_DONTWAIT), "recvmsg");
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  require(header != nullptr && header->cmsg_type == SCM_RIGHTS, "no descriptor came");
  std::vector<int> taken((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  std::memcpy(taken.data(), CMSG_DATA(header), taken.size() * sizeof(int));
  return taken;
}

static void expect_text(int from, const std::string& wanted) {
  std::string text(wanted.size(), '?');
  require(must(::read(from, text.data(), text.size()), "read") == static_cast<long>(text.size()) &&
              text == wanted,
          "read " + text + ", not " + wanted);
}

static std::pair<int, int> make_pipe() {
  int ends[2];
  must(::pipe2(ends, O_NONBLOCK), "pipe");
  return {ends[0], ends[1]};
}

int main(int, char** arguments) {
  const std::string name = std::string{arguments[1]} + "/file";
  const int file = static_cast<int>(must(::open(name.c_str(), O_RDWR | O_CREAT, 0600), "file"));
  must(::write(file, "one two", 7), "write");
  must(::close(file), "close");
  const Pair files{SOCK_STREAM}, pipes{SOCK_SEQPACKET}, nested{SOCK_STREAM}, packets{SOCK_DGRAM};
  int write_end = -1;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string unique = "icecore-test-" + std::to_string(random_number());
  std::memcpy(address.sun_path + 1, unique.data(), unique.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + unique.size());

  const auto refill = [&] {
    const int opened = static_cast<int>(must(::open(name.c_str(), O_RDONLY), "open"));
    must(::lseek(opened, 4, SEEK_SET), "lseek");
    const int nameless =
        static_cast<int>(must(::open(arguments[1], O_TMPFILE | O_RDWR, 0600), "O_TMPFILE"));
    must(::write(nameless, "nameless", 8), "write");
    give(files.a, {opened, nameless});

    const auto [read_end, other] = make_pipe();
    write_end = other;
    must(::write(write_end, "waits", 5), "write");
    give(pipes.a, {read_end});
    const auto [both, ends] = make_pipe();
    must(::write(ends, "alone", 5), "write");
    give(pipes.a, {both, ends});

    const Pair inner{SOCK_STREAM};
    const auto [deep, deep_end] = make_pipe();
    must(::write(deep_end, "deep", 4), "write");
    must(::close(deep_end), "close");
    give(inner.a, {deep});
    give(nested.a, {inner.a, inner.b});

    const Pair circle{SOCK_DGRAM};
    must(::bind(circle.b, reinterpret_cast<const sockaddr*>(&address), size), "bind");
    give(packets.a, {static_cast<int>(must(::dup(circle.b), "dup"))});
    give(circle.a, {circle.b});
    must(::close(circle.a), "close");
  };
  refill();

  return serve([&] {
    const std::vector<int> two = take(files.b);
    require(two.size() == 2, "another number of files");
    expect_text(two[0], "two");
    must(::lseek(two[1], 0, SEEK_SET), "lseek");
    expect_text(two[1], "nameless");

    const std::vector<int> half = take(pipes.b), whole = take(pipes.b);
    require(half.size() == 1 && whole.size() == 2, "another number of pipes");
    expect_text(half[0], "waits");
    must(::write(write_end, "more", 4), "write");
    expect_text(half[0], "more");
    must(::close(write_end), "close");
    char byte;
    require(::read(half[0], &byte, 1) == 0, "the pipe has another end");
    expect_text(whole[0], "alone");
    must(::close(whole[1]), "close");
    require(::read(whole[0], &byte, 1) == 0, "the pipe has another end");

    const std::vector<int> inner = take(nested.b);
    require(inner.size() == 2, "another number of sockets");
    const std::vector<int> deep = take(inner[1]);
    expect_text(deep[0], "deep");
    require(::read(deep[0], &byte, 1) == 0, "the pipe has another end");
    must(::send(inner[0], "pair", 4, MSG_DONTWAIT), "send");
    expect_text(inner[1], "pair");

    const std::vector<int> circle = take(packets.b);
    const std::vector<int> itself = take(circle[0]);
    struct ::stat one {
    }, other{};
    must(::fstat(circle[0], &one), "fstat");
    must(::fstat(itself[0], &other), "fstat");
    require(one.st_ino == other.st_ino, "another socket waited in it");
    sockaddr_un now{};
    socklen_t now_size = sizeof now;
    must(::getsockname(circle[0], reinterpret_cast<sockaddr*>(&now), &now_size), "getsockname");
    require(now_size == size && std::memcmp(&now, &address, size) == 0, "another name");
    for (const auto* all : {&two, &half, &inner, &deep, &circle, &itself})
      for (const int descriptor : *all) must(::close(descriptor), "close");
    must(::close(whole[0]), "close");
    refill();
  });
}
