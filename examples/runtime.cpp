// SPDX-License-Identifier: Apache-2.0
//
// A small serverless runtime: answers HTTP requests from processes that were prepared ahead.
//
//     runtime IMAGE PORT [PREPARED]
//
// The image is of a program that reads a line (the path of the request) and answers with one, such
// as
//
//     for line in sys.stdin: print("you asked for", line.strip(), flush=True)
//
// Each request gets a process of its own, which begins where the snapshot was taken and ends with
// it. While a request is answered, the next process is prepared: it has done everything but run.
#include <fcntl.h>
#include <icecore/error.hpp>
#include <icecore/restore.hpp>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <system_error>
#include <utility>

namespace {

int must(int result, const char* what) {
  if (result == -1) throw std::system_error{errno, std::generic_category(), what};
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }

 private:
  int number_;
};

std::pair<Descriptor, Descriptor> make_pipe() {
  int ends[2];
  must(::pipe2(ends, O_CLOEXEC), "pipe");
  return {Descriptor{ends[0]}, Descriptor{ends[1]}};
}

/// What comes until `end`, or until nothing more does; a request is small.
std::string read_until(int fd, const std::string& end) {
  constexpr std::size_t kMost = 65536;
  constexpr int kPatienceMs = 10'000;
  std::string text;
  char bytes[4096];
  while (text.find(end) == std::string::npos && text.size() < kMost) {
    ::pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, kPatienceMs) <= 0) break;
    const ssize_t count = ::read(fd, bytes, sizeof bytes);
    if (count <= 0) break;
    text.append(bytes, static_cast<std::size_t>(count));
  }
  return text;
}

void write_all(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(fd, text.data() + done, text.size() - done);
    if (count <= 0) return;
    done += static_cast<std::size_t>(count);
  }
}

/// A process that waits for its request.
class Worker {
 public:
  explicit Worker(const icecore::Image& image) : Worker(image, make_pipe(), make_pipe()) {}

  /// Once.
  std::string answer(const std::string& question) {
    icecore::RestoredProcess process = std::move(prepared_).start();
    write_all(to_.get(), question + "\n");
    const std::string line = read_until(from_.get(), "\n");
    process.signal(SIGKILL);  // one request, one process
    process.wait();
    return line;
  }

 private:
  using Pipe = std::pair<Descriptor, Descriptor>;

  Worker(const icecore::Image& image, Pipe in, Pipe out)
      : prepared_(
            icecore::prepare(image, {.pids = icecore::Pids::in_namespace,
                                     .standard_streams = {in.first.get(), out.second.get(), 2}})),
        to_(std::move(in.second)),
        from_(std::move(out.first)) {}

  icecore::PreparedProcess prepared_;
  Descriptor to_;
  Descriptor from_;
};

Descriptor listen_on(std::uint16_t port) {
  Descriptor socket{must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
  const int yes = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  ::sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  must(::bind(socket.get(), reinterpret_cast<::sockaddr*>(&address), sizeof address), "bind");
  must(::listen(socket.get(), SOMAXCONN), "listen");
  return socket;
}

/// "GET /path HTTP/1.1" gives "/path"; empty for anything else.
std::string path_of(const std::string& request) {
  const std::size_t begin = request.find(' ');
  const std::size_t end = begin == std::string::npos ? begin : request.find(' ', begin + 1);
  return end == std::string::npos ? "" : request.substr(begin + 1, end - begin - 1);
}

void respond(int connection, const char* status, const std::string& body) {
  write_all(connection, "HTTP/1.1 " + std::string{status} +
                            "\r\nContent-Type: text/plain\r\nContent-Length: " +
                            std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body);
}

void serve(const icecore::Image& image, std::uint16_t port, std::size_t count) {
  std::deque<Worker> workers;
  while (workers.size() < count) workers.emplace_back(image);
  const Descriptor listener = listen_on(port);
  std::printf("listening on 127.0.0.1:%u with %zu prepared processes\n", port, count);
  std::fflush(stdout);
  for (;;) {
    const Descriptor connection{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    if (connection.get() < 0) continue;
    const std::string path = path_of(read_until(connection.get(), "\r\n\r\n"));
    if (path.empty()) {
      respond(connection.get(), "400 Bad Request", "");
      continue;
    }
    const std::string answer = workers.front().answer(path);
    workers.pop_front();
    respond(connection.get(), answer.empty() ? "502 Bad Gateway" : "200 OK", answer);
    ::shutdown(connection.get(), SHUT_WR);
    workers.emplace_back(image);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: runtime IMAGE PORT [PREPARED]\n");
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  try {
    serve(icecore::Image::open(arguments[1]), static_cast<std::uint16_t>(std::atoi(arguments[2])),
          count > 3 ? static_cast<std::size_t>(std::atoi(arguments[3])) : 4);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "runtime: %s\n", error.what());
    return 1;
  }
}
