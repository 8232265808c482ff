// SPDX-License-Identifier: Apache-2.0
//
// State: what has been deleted in FOLDER and is no regular file: a directory by two descriptions, a
// fifo with something in it, sockets of unix(7) whose folders are gone; and the namespaces of the
// process.
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

static int open_at(const std::string& path, int flags) {
  return static_cast<int>(must(::open(path.c_str(), flags), path));
}

static struct ::stat status_of(int descriptor) {
  struct ::stat status {};
  must(::fstat(descriptor, &status), "fstat");
  return status;
}

static std::string name_of(int socket) {
  sockaddr_un name{};
  socklen_t size = sizeof name;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size), "getsockname");
  return name.sun_path;
}

static int bound_to(int type, const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  const int socket = static_cast<int>(must(::socket(AF_UNIX, type, 0), "socket"));
  must(::bind(socket, reinterpret_cast<const sockaddr*>(&name), sizeof name), "bind");
  return socket;
}

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  const std::string place = folder + "/place", fifo = folder + "/fifo", deep = folder + "/a/b";
  must(::mkdir(place.c_str(), 0751), "mkdir");
  must(::chmod(place.c_str(), 0751), "chmod");
  const int one = open_at(place, O_RDONLY | O_DIRECTORY), two = open_at(place, O_RDONLY);
  must(::rmdir(place.c_str()), "rmdir");

  must(::mkfifo(fifo.c_str(), 0640), "mkfifo");
  const int both = open_at(fifo, O_RDWR | O_NONBLOCK), reader = open_at(fifo, O_RDONLY);
  must(::unlink(fifo.c_str()), "unlink");
  must(::write(both, "in the fifo", 11), "write");

  must(::mkdir((folder + "/a").c_str(), 0700), "mkdir");
  must(::mkdir(deep.c_str(), 0700), "mkdir");
  const std::string stream_name = deep + "/stream", datagram_name = deep + "/datagrams";
  const int listener = bound_to(SOCK_STREAM, stream_name);
  must(::listen(listener, 2), "listen");
  const int datagrams = bound_to(SOCK_DGRAM, datagram_name);
  must(::unlink(stream_name.c_str()), "unlink");
  must(::unlink(datagram_name.c_str()), "unlink");
  must(::rmdir(deep.c_str()), "rmdir");
  must(::rmdir((folder + "/a").c_str()), "rmdir");

  const int network = open_at("/proc/self/ns/net", O_RDONLY);
  const int names = open_at("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);

  return serve([&] {
    require(status_of(one).st_ino == status_of(two).st_ino, "two directories");
    require(status_of(one).st_nlink == 0 && S_ISDIR(status_of(one).st_mode), "it has a name");
    require((status_of(one).st_mode & 07777) == 0751, "another mode");
    require(::openat(one, "x", O_CREAT | O_RDWR, 0600) == -1 && errno == ENOENT, "it lives");
    require(::access(place.c_str(), F_OK) == -1, "there is a new directory");

    require(status_of(both).st_nlink == 0 && S_ISFIFO(status_of(both).st_mode), "it has a name");
    require(status_of(both).st_ino == status_of(reader).st_ino, "two fifos");
    require((status_of(both).st_mode & 07777) == 0640, "another mode of the fifo");
    char text[11];
    require(must(::read(reader, text, sizeof text), "read") == 11 &&
                std::string(text, 11) == "in the fifo",
            "something else was in the fifo");
    must(::write(both, "in the fifo", 11), "write");
    require(::access(fifo.c_str(), F_OK) == -1, "there is a new fifo");

    require(name_of(listener) == stream_name && name_of(datagrams) == datagram_name,
            "another name");
    require(::access((folder + "/a").c_str(), F_OK) == -1, "there is a new folder");
    const int now = open_at("/proc/self/ns/net", O_RDONLY);
    require(status_of(network).st_ino == status_of(now).st_ino, "another network");
    must(::close(now), "close");
    require((::fcntl(names, F_GETFD) & FD_CLOEXEC) != 0, "FD_CLOEXEC is gone");
  });
}
