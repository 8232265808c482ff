// SPDX-License-Identifier: Apache-2.0
#include "ready.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "descriptor.hpp"

namespace icecore::tool {
namespace {

using std::chrono::milliseconds;

// ---- notify, guest ------------------------------------------------------------------------------

struct Address {
  ::sockaddr_un address{};
  ::socklen_t size = 0;

  explicit Address(std::string_view name) {
    address.sun_family = AF_UNIX;
    const std::size_t count = std::min(name.size(), sizeof address.sun_path - 1);
    std::memcpy(address.sun_path, name.data(), count);
    if (name.starts_with('@')) address.sun_path[0] = '\0';  // the abstract namespace
    size = static_cast<::socklen_t>(offsetof(::sockaddr_un, sun_path) + count);
  }
  const ::sockaddr* get() const { return reinterpret_cast<const ::sockaddr*>(&address); }
};

/// The convention of sd_notify(3).  The name goes with us, however we end.
class Notified final : public Ready {
 public:
  explicit Notified(const char* message)
      : message_(message),
        name_(fmt::format("@icecore/ready/{}-{}", ::getpid(),
                          std::chrono::steady_clock::now().time_since_epoch().count())),
        socket_(checked(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
                        "make a socket for readiness")) {
    const Address address{name_};
    checked(::bind(socket_.get(), address.get(), address.size), "bind a socket for readiness");
  }

  std::vector<std::string> environment() const override { return {"NOTIFY_SOCKET=" + name_}; }
  std::vector<::pollfd> waits() const override { return {{socket_.get(), POLLIN, 0}}; }

  bool look() override {
    std::array<char, 4096> text{};
    for (ssize_t count; (count = ::recv(socket_.get(), text.data(), text.size(), 0)) >= 0;) {
      const std::string_view message{text.data(), static_cast<std::size_t>(count)};
      notify_our_own_supervisor(message);
      if (("\n" + std::string{message} + "\n").find(message_) != std::string::npos) ready_ = true;
    }
    return ready_;
  }

 private:
  const char* message_;
  std::string name_;
  Descriptor socket_;
  bool ready_ = false;
};

// ---- what shows from outside
// ----------------------------------------------------------------------

/// Looks often at first, since programs that start quickly are those for which it matters.
class Watched : public Ready {
 public:
  milliseconds look_after() const override {
    if (ready_) return milliseconds{-1};
    return std::chrono::steady_clock::now() - since_ < std::chrono::seconds{10} ? milliseconds{2}
                                                                                : milliseconds{20};
  }
  bool look() override { return ready_ = ready_ || is_ready(); }
  void started(pid_t pid) override {
    pid_ = pid;
    since_ = std::chrono::steady_clock::now();
  }

 protected:
  virtual bool is_ready() const = 0;
  pid_t pid() const { return pid_; }
  std::chrono::steady_clock::time_point since() const { return since_; }

 private:
  pid_t pid_ = 0;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  bool ready_ = false;
};

/// Connecting would be seen by the program, so the kernel's list is read.
class Port final : public Watched {
 public:
  explicit Port(unsigned number) : ending_(fmt::format(":{:04X}", number)) {}

 private:
  bool is_ready() const override { return listens_in("tcp") || listens_in("tcp6"); }

  bool listens_in(const char* table) const {
    std::ifstream file{fmt::format("/proc/{}/net/{}", pid(), table)};
    for (std::string line; std::getline(file, line);) {
      std::istringstream words{line};
      std::string slot, local, remote, state;
      if (words >> slot >> local >> remote >> state; state == "0A" && local.ends_with(ending_))
        return true;
    }
    return false;
  }

  std::string ending_;
};

/// One that was there before the program was started has to be another one.
class File final : public Watched {
 public:
  explicit File(std::string_view path) : path_(path), before_(what_is_there()) {}

 private:
  struct Identity {
    ::ino_t inode = 0;
    std::int64_t written_ns = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };

  Identity what_is_there() const {
    struct ::stat status {};
    if (::stat(path_.c_str(), &status) != 0) return {};
    return {status.st_ino, status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec};
  }

  bool is_ready() const override {
    const Identity now = what_is_there();
    return now != Identity{} && now != before_;
  }

  std::string path_;
  Identity before_;
};

class Delay final : public Watched {
 public:
  explicit Delay(milliseconds delay) : delay_(delay) {}

  milliseconds look_after() const override {
    const auto left =
        std::chrono::ceil<milliseconds>(since() + delay_ - std::chrono::steady_clock::now());
    return over_ ? milliseconds{-1} : std::max(left, milliseconds{0});
  }

 private:
  bool is_ready() const override {
    return over_ = std::chrono::steady_clock::now() - since() >= delay_;
  }

  milliseconds delay_;
  mutable bool over_ = false;
};

// ---- log
// --------------------------------------------------------------------------------------------

/// What a line is searched for.  Of regexec(3), not std::regex, which takes a level of the stack
/// for each byte of a line, and a time that grows with its square.
class Pattern {
 public:
  explicit Pattern(const std::string& text) {
    if (const int error = ::regcomp(&pattern_, text.c_str(), REG_EXTENDED | REG_NOSUB);
        error != 0) {
      std::array<char, 256> message{};
      ::regerror(error, &pattern_, message.data(), message.size());
      throw Error{Errc::invalid_argument,
                  fmt::format("{} is no regular expression: {}", text, message.data())};
    }
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  ~Pattern() { ::regfree(&pattern_); }

  bool found_in(const std::string& line) const {
    ::regmatch_t whole{0, static_cast<::regoff_t>(line.size())};  // also behind a NUL
    return ::regexec(&pattern_, line.c_str(), 1, &whole, REG_STARTEND) == 0;
  }

 private:
  ::regex_t pattern_{};
};

/// Its output comes through us, also after the snapshot; a piece at each look, so that neither who
/// writes without end nor who does not read keeps us from passing signals on.
class Log final : public Ready {
 public:
  explicit Log(const std::string& pattern) : pattern_(pattern), out_(1), error_(2) {
    ::sigemptyset(&broken_pipe_);
    ::sigaddset(&broken_pipe_, SIGPIPE);
  }

  int output(int number) const override { return (number == 1 ? out_ : error_).write_end.get(); }
  void started(pid_t) override {
    out_.write_end.close();
    error_.write_end.close();
    ::pthread_sigmask(SIG_BLOCK, &broken_pipe_, nullptr);  // it is for the program to learn of
  }
  std::vector<::pollfd> waits() const override { return {out_.wait(), error_.wait()}; }
  milliseconds look_after() const override {
    if (ready_) return milliseconds{-1};
    auto soonest = milliseconds{-1};
    for (const Stream* stream : {&out_, &error_}) {
      if (!stream->has_open_line()) continue;
      const auto left = std::max(
          std::chrono::ceil<milliseconds>(stream->stands_at() - Clock::now()), milliseconds{0});
      soonest = soonest.count() < 0 ? left : std::min(soonest, left);
    }
    return soonest;
  }
  bool look() override {
    for (Stream* stream : {&out_, &error_}) {
      pass_on(*stream);
      if (!ready_) search_open_line(*stream);
    }
    return ready_;
  }
  bool has_rest() const override { return out_.has_rest() || error_.has_rest(); }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kLongestLine = 4096;  // a longer one is searched in pieces
  static constexpr milliseconds kStands{50};         // a prompt, not the first half of a line

  struct Stream {
    explicit Stream(int number) : Stream(number, make_pipe()) {}

    ::pollfd wait() const {
      return unwritten.empty() ? ::pollfd{read_end.get(), POLLIN, 0} : ::pollfd{ours, POLLOUT, 0};
    }
    bool has_rest() const {
      if (!unwritten.empty()) return true;
      int count = 0;
      return read_end.get() >= 0 && ::ioctl(read_end.get(), FIONREAD, &count) == 0 && count > 0;
    }
    bool has_open_line() const { return !line.empty() && !searched; }
    /// When a line without an end is taken for a whole one: at once if nothing can follow.
    Clock::time_point stands_at() const {
      return read_end.get() < 0 ? Clock::time_point{} : written_at + kStands;
    }

    int ours;
    Descriptor read_end;
    Descriptor write_end;
    std::string line = {};
    bool searched = false;  // the line, as far as it is there
    Clock::time_point written_at = {};
    std::string unwritten = {};

   private:
    static std::array<int, 2> make_pipe() {
      std::array<int, 2> ends{};
      checked(::pipe2(ends.data(), O_CLOEXEC), "make a pipe");
      checked(::fcntl(ends[0], F_SETFL, O_NONBLOCK), "set up a pipe");
      return ends;
    }
    Stream(int number, std::array<int, 2> ends)
        : ours(number), read_end(ends[0]), write_end(ends[1]) {}
  };

  void pass_on(Stream& stream) {
    if (stream.unwritten.empty()) read_some(stream);
    write_some(stream);
  }

  void read_some(Stream& stream) {
    std::array<char, 65536> bytes{};
    const ssize_t count = ::read(stream.read_end.get(), bytes.data(), bytes.size());
    if (count == 0) stream.read_end.close();
    if (count <= 0) return;
    stream.unwritten.assign(bytes.data(), static_cast<std::size_t>(count));
    if (!ready_) search(stream, stream.unwritten);
  }

  /// As much as does not make us wait.  When nobody reads ours any more, nobody shall read the
  /// program's: it gets SIGPIPE as it would have.
  void write_some(Stream& stream) const {
    std::size_t written = 0;
    for (::pollfd room{stream.ours, POLLOUT, 0};
         written < stream.unwritten.size() && ::poll(&room, 1, 0) == 1;) {
      const std::size_t most = std::min<std::size_t>(stream.unwritten.size() - written, PIPE_BUF);
      const ssize_t count = ::write(stream.ours, stream.unwritten.data() + written, most);
      if (count >= 0) {
        written += static_cast<std::size_t>(count);
      } else if (errno == EAGAIN) {
        break;
      } else if (errno != EINTR) {
        const ::timespec no_time{};
        ::sigtimedwait(&broken_pipe_, nullptr, &no_time);
        stream.read_end.close();
        written = stream.unwritten.size();
      }
    }
    stream.unwritten.erase(0, written);
  }

  void search(Stream& stream, std::string_view text) {
    stream.searched = false;
    stream.written_at = Clock::now();
    for (const char c : text) {
      if (c != '\n') stream.line += c;
      if (c != '\n' && stream.line.size() < kLongestLine) continue;
      ready_ = ready_ || pattern_.found_in(stream.line);
      stream.line.clear();
    }
  }

  void search_open_line(Stream& stream) {
    if (!stream.has_open_line() || Clock::now() < stream.stands_at()) return;
    stream.searched = true;
    ready_ = pattern_.found_in(stream.line);
  }

  sigset_t broken_pipe_{};
  Pattern pattern_;
  Stream out_;
  Stream error_;
  bool ready_ = false;
};

std::optional<std::string_view> behind(std::string_view text, std::string_view start) {
  if (!text.starts_with(start) || text.size() == start.size()) return std::nullopt;
  return text.substr(start.size());
}

std::unique_ptr<Ready> make_port(std::string_view text) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool good =
      error == std::errc{} && end == text.data() + text.size() && number != 0 && number < 65536;
  return good ? std::make_unique<Port>(number) : nullptr;
}

std::unique_ptr<Ready> make_delay(const std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !(seconds >= 0) || seconds > 1e6) return nullptr;
  return std::make_unique<Delay>(milliseconds{static_cast<std::int64_t>(seconds * 1000)});
}

}  // namespace

std::unique_ptr<Ready> make_ready(std::string_view how) {
  if (how == "notify") return std::make_unique<Notified>("\nREADY=1\n");
  if (how == "guest") return std::make_unique<Notified>("\nICECORE_SNAPSHOT=1\n");
  if (const auto number = behind(how, "port:")) return make_port(*number);
  if (const auto path = behind(how, "file:")) return std::make_unique<File>(*path);
  if (const auto seconds = behind(how, "delay:")) return make_delay(std::string{*seconds});
  if (const auto pattern = behind(how, "log:")) {
    try {
      return std::make_unique<Log>(std::string{*pattern});
    } catch (const Error&) {
      return nullptr;
    }
  }
  return nullptr;
}

std::string check_ready(const std::string& how) {
  if (const auto pattern = behind(how, "log:")) {
    try {
      const Pattern compiled{std::string{*pattern}};
      return {};
    } catch (const Error& error) {
      return error.what();
    }
  }
  if (make_ready(how) != nullptr) return {};
  return how + " is not notify, guest, port:N, file:PATH, log:REGEX or delay:SECONDS";
}

void notify_our_own_supervisor(std::string_view message) {
  const char* const name = std::getenv("NOTIFY_SOCKET");
  if (name == nullptr || *name == '\0') return;
  const Descriptor socket{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  const Address address{name};
  ::sendto(socket.get(), message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT, address.get(),
           address.size);
}

}  // namespace icecore::tool
