// SPDX-License-Identifier: Apache-2.0
//
// State: sockets of unix(7) in FOLDER whose files have been moved: one that was bound to a name of
// its own and then took a well-known one, as servers do that replace each other; another that has
// the first name now; datagrams moved into another folder; one with a relative name, bound in
// another working directory; and one whose file was deleted.
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

static sockaddr_un address(const std::string& name) {
  sockaddr_un result{};
  result.sun_family = AF_UNIX;
  std::memcpy(result.sun_path, name.data(), name.size());
  return result;
}

static const sockaddr* generic(const sockaddr_un& name) {
  return reinterpret_cast<const sockaddr*>(&name);
}

static int bound(int type, const std::string& path) {
  const int socket = static_cast<int>(must(::socket(AF_UNIX, type, 0), "socket"));
  const sockaddr_un name = address(path);
  must(::bind(socket, generic(name), sizeof name), "bind to " + path);
  if (type == SOCK_STREAM) must(::listen(socket, 5), "listen");
  return socket;
}

static std::string name_of(int socket) {
  sockaddr_un name{};
  socklen_t size = sizeof name;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size), "getsockname");
  return name.sun_path;
}

/// Who connects to `path` is accepted by `listener`.
static void expect_leads(const std::string& path, int listener) {
  const int client = static_cast<int>(must(::socket(AF_UNIX, SOCK_STREAM, 0), "socket"));
  const sockaddr_un name = address(path);
  must(::connect(client, generic(name), sizeof name), "connect to " + path);
  ::close(static_cast<int>(
      must(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK), "accept at " + path)));
  ::close(client);
}

static mode_t mode_of(const std::string& path) {
  struct ::stat file {};
  must(::stat(path.c_str(), &file), path);
  return file.st_mode & 07777;
}

static void rename_file(const std::string& from, const std::string& to) {
  must(::rename(from.c_str(), to.c_str()), "rename " + from);
}

int main(int, char** arguments) {
  const std::string folder = arguments[1], inner = folder + "/inner";
  must(::mkdir(inner.c_str(), 0755), "mkdir");
  const int later = bound(SOCK_STREAM, folder + "/first");  // the lower number has the name at last
  rename_file(folder + "/first", folder + "/aside");
  const int moved = bound(SOCK_STREAM, folder + "/first");
  rename_file(folder + "/first", folder + "/well-known");
  rename_file(folder + "/aside", folder + "/first");
  must(::chmod((folder + "/well-known").c_str(), 0611), "chmod");
  const int datagrams = bound(SOCK_DGRAM, folder + "/datagrams");
  rename_file(folder + "/datagrams", inner + "/datagrams");
  must(::chdir(inner.c_str()), "chdir");
  const int relative = bound(SOCK_STREAM, "relative");
  must(::chdir(folder.c_str()), "chdir");
  const int deleted = bound(SOCK_STREAM, "deleted");
  must(::unlink("deleted"), "unlink");

  return serve([&] {
    require(name_of(moved) == folder + "/first" && name_of(later) == folder + "/first" &&
                name_of(relative) == "relative" && name_of(deleted) == "deleted" &&
                name_of(datagrams) == folder + "/datagrams",
            "another name");
    expect_leads(folder + "/well-known", moved);
    expect_leads(folder + "/first", later);
    expect_leads(inner + "/relative", relative);
    require(mode_of(folder + "/well-known") == 0611, "another mode");
    for (const char* name : {"/relative", "/deleted", "/datagrams", "/aside"})
      require(::access((folder + name).c_str(), F_OK) != 0, std::string{name} + " is there");
    const int sender = static_cast<int>(must(::socket(AF_UNIX, SOCK_DGRAM, 0), "socket"));
    const sockaddr_un name = address(inner + "/datagrams");
    must(::sendto(sender, "moved", 5, 0, generic(name), sizeof name), "send");
    char text[5];
    must(::recv(datagrams, text, sizeof text, MSG_DONTWAIT), "recv");
    require(std::string(text, 5) == "moved", "another datagram");
    ::close(sender);
  });
}
