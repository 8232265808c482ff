// SPDX-License-Identifier: Apache-2.0
//
// A small serverless runtime: answers HTTP requests from processes that were prepared ahead.
//
//     runtime IMAGE PORT [PREPARED]      (port 0: any)
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
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace {

int must(int result, const char* what) {
  if (result == -1) throw std::system_error{errno, std::generic_category(), what};
  return result;
}

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using Stream = std::unique_ptr<std::FILE, Close>;

Stream stream(int descriptor, const char* mode) { return Stream{::fdopen(descriptor, mode)}; }

/// Without the end of the line; empty when there is none in time.
std::string read_line(std::FILE* file) {
  char* text = nullptr;
  std::size_t room = 0;
  const ssize_t size = ::getline(&text, &room, file);
  std::string line{text, size > 0 ? static_cast<std::size_t>(size) : 0};
  std::free(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return line;
}

/// A process that waits for its request.
class Worker {
 public:
  explicit Worker(const icecore::Image& image) : Worker(image, make_pipe(), make_pipe()) {}

  /// Once.
  std::string answer(const std::string& question) {
    icecore::RestoredProcess process = std::move(prepared_).start();
    std::fprintf(to_.get(), "%s\n", question.c_str());
    std::fflush(to_.get());
    constexpr int kPatienceMs = 10'000;
    ::pollfd wait{::fileno(from_.get()), POLLIN, 0};
    std::string line = ::poll(&wait, 1, kPatienceMs) == 1 ? read_line(from_.get()) : "";
    process.signal(SIGKILL);  // one request, one process
    process.wait();
    return line;
  }

 private:
  struct Pipe {
    Stream read_end, write_end;
  };
  static Pipe make_pipe() {
    std::array<int, 2> ends{};
    must(::pipe2(ends.data(), O_CLOEXEC), "pipe");
    return {stream(ends[0], "r"), stream(ends[1], "w")};
  }

  Worker(const icecore::Image& image, Pipe in, Pipe out)
      : prepared_(icecore::prepare(
            image,
            {.pids = icecore::Pids::in_namespace,
             .standard_streams = {::fileno(in.read_end.get()), ::fileno(out.write_end.get()), 2}})),
        to_(std::move(in.write_end)),
        from_(std::move(out.read_end)) {}

  icecore::PreparedProcess prepared_;
  Stream to_;
  Stream from_;
};

/// Prints where.
int listen_on(std::uint16_t port) {
  const int socket = must(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  const int yes = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  ::sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  ::socklen_t size = sizeof address;
  must(::bind(socket, reinterpret_cast<::sockaddr*>(&address), size), "bind");
  must(::listen(socket, SOMAXCONN), "listen");
  must(::getsockname(socket, reinterpret_cast<::sockaddr*>(&address), &size), "getsockname");
  std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return socket;
}

/// "GET /path HTTP/1.1" and headers give "/path"; empty for anything else.
std::string read_path(std::FILE* connection) {
  const std::string first = read_line(connection);
  while (!read_line(connection).empty()) {
  }
  const std::size_t begin = first.find(' ');
  const std::size_t end = begin == std::string::npos ? begin : first.find(' ', begin + 1);
  return end == std::string::npos ? "" : first.substr(begin + 1, end - begin - 1);
}

void respond(int connection, const char* status, const std::string& body) {
  ::dprintf(connection,
            "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
            "Connection: close\r\n\r\n%s",
            status, body.size(), body.c_str());
}

void handle(int connection, Worker& worker) {
  const ::timeval patience{10, 0};
  ::setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const Stream request = stream(connection, "r");
  const std::string path = read_path(request.get());
  if (path.empty()) return respond(connection, "400 Bad Request", "");
  const std::string answer = worker.answer(path);
  respond(connection, answer.empty() ? "502 Bad Gateway" : "200 OK", answer);
}

void serve(const icecore::Image& image, std::uint16_t port, std::size_t count) {
  std::deque<Worker> workers;
  while (workers.size() < count) workers.emplace_back(image);
  const int listener = listen_on(port);
  for (;;) {
    const int connection = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) continue;
    handle(connection, workers.front());
    workers.pop_front();
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
