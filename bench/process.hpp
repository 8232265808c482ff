// SPDX-License-Identifier: Apache-2.0
//
// Programs that are started, asked a line at a time, and ended.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

extern char** environ;

namespace bench {

using Command = std::vector<std::string>;

template <class Result>
Result must(Result result, const std::string& what) {
  if (result == -1) throw std::system_error{errno, std::generic_category(), what};
  return result;
}

class Fd {
 public:
  Fd() = default;
  explicit Fd(int number) : number_(number) {}
  Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Fd() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }

 private:
  int number_ = -1;
};

/// Starts a program with these descriptors as its 0, 1, 2 and no others.
inline pid_t spawn(const Command& command, int in, int out, int error) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawnattr_t attributes;  // signals at their defaults, whatever is ignored here
  sigset_t all;
  sigfillset(&all);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  posix_spawn_file_actions_t streams;
  ::posix_spawn_file_actions_init(&streams);
  ::posix_spawn_file_actions_adddup2(&streams, in, 0);
  ::posix_spawn_file_actions_adddup2(&streams, out, 1);
  ::posix_spawn_file_actions_adddup2(&streams, error, 2);
  ::posix_spawn_file_actions_addclosefrom_np(&streams, 3);
  pid_t pid = 0;
  const int failure = ::posix_spawnp(&pid, words[0], &streams, &attributes, words.data(), environ);
  ::posix_spawn_file_actions_destroy(&streams);
  ::posix_spawnattr_destroy(&attributes);
  if (failure != 0) throw std::system_error{failure, std::generic_category(), command[0]};
  return pid;
}

inline int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) == -1)
    if (errno != EINTR) throw std::system_error{errno, std::generic_category(), "waitpid"};
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// A file that exists only while it is open; for what a program writes.
class Output {
 public:
  int fd() const { return file_.get(); }

  std::string text() const {
    std::string text(static_cast<std::size_t>(must(::lseek(fd(), 0, SEEK_END), "lseek")), '\0');
    must(::pread(fd(), text.data(), text.size(), 0), "pread");
    return text;
  }

 private:
  Fd file_{must(::memfd_create("output", MFD_CLOEXEC), "memfd_create")};
};

/// Runs a program to its end and returns what it printed.  Throws with its error output when it
/// fails.
inline std::string run(const Command& command) {
  const Output out, error;
  const Fd null{must(::open("/dev/null", O_RDONLY | O_CLOEXEC), "/dev/null")};
  const int status = wait_for(spawn(command, null.get(), out.fd(), error.fd()));
  if (status != 0)
    throw std::runtime_error{fmt::format("{} {}: status {}: {}", command[0],
                                         command.size() > 1 ? command[1] : "", status,
                                         error.text())};
  return out.text();
}

/// Lines to and from a program, through pipes that are its standard input and output.
class Lines {
 public:
  struct Ended : std::runtime_error {
    using std::runtime_error::runtime_error;
  };

  Lines() {
    int to[2], from[2];
    must(::pipe2(to, O_CLOEXEC), "pipe");
    must(::pipe2(from, O_CLOEXEC), "pipe");
    its_input_ = Fd{to[0]};
    its_output_ = Fd{from[1]};
    to_ = Fd{to[1]};
    from_ = Fd{from[0]};
  }

  int its_input() const { return its_input_.get(); }
  int its_output() const { return its_output_.get(); }
  /// Once the program has them.
  void begin() {
    its_input_ = Fd{};
    its_output_ = Fd{};
  }

  std::string hear() {
    constexpr int kPatienceMs = 120'000;
    std::size_t end;
    while ((end = unread_.find('\n')) == std::string::npos) {
      ::pollfd wait = {from_.get(), POLLIN, 0};
      if (must(::poll(&wait, 1, kPatienceMs), "poll") == 0) throw std::runtime_error{"no answer"};
      char bytes[4096];
      const ssize_t count = must(::read(from_.get(), bytes, sizeof bytes), "read");
      if (count == 0) throw Ended{"it ended"};
      unread_.append(bytes, static_cast<std::size_t>(count));
    }
    std::string line = unread_.substr(0, end);
    unread_.erase(0, end + 1);
    return line;
  }

  std::string ask(const std::string& question) {
    const std::string line = question + "\n";
    must(::write(to_.get(), line.data(), line.size()), "write");
    return hear();
  }

  void hang_up() { to_ = Fd{}; }

 private:
  Fd its_input_, its_output_, to_, from_;
  std::string unread_;
};

enum class Errors { dropped, kept };

/// A program that answers lines with lines.  Ends with this object.
class Program {
 public:
  explicit Program(const Command& command, Errors errors = Errors::dropped) {
    const Fd null{must(::open("/dev/null", O_WRONLY | O_CLOEXEC), "/dev/null")};
    pid_ = spawn(command, lines_.its_input(), lines_.its_output(),
                 errors == Errors::kept ? error_.fd() : null.get());
    lines_.begin();
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() { kill(); }

  pid_t pid() const { return pid_; }
  std::string error_text() const { return error_.text(); }

  std::string hear() {
    return explained([&] { return lines_.hear(); });
  }
  std::string ask(const std::string& question) {
    return explained([&] { return lines_.ask(question); });
  }

  /// Whether it has ended by itself.
  bool ended() const {
    ::siginfo_t info{};
    must(::waitid(P_PID, static_cast<::id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT), "waitid");
    return info.si_pid != 0;
  }

  void kill() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    wait_for(std::exchange(pid_, 0));
  }

  /// Ends its input, and with that the program: the way to end one that another program restored.
  void hang_up() {
    lines_.hang_up();
    wait_for(std::exchange(pid_, 0));
  }

 private:
  template <class Talk>
  std::string explained(Talk talk) const {
    try {
      return talk();
    } catch (const Lines::Ended& ended) {
      throw std::runtime_error{std::string{ended.what()} + ": " + error_.text()};
    }
  }

  Output error_;
  Lines lines_;
  pid_t pid_ = 0;
};

}  // namespace bench
