// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/descriptor.hpp"
#include "support/patience.hpp"
#include "support/process.hpp"

namespace test {

/// A terminal window, and the program that leads the session in it.
class Window {
 public:
  Window(const Arguments& arguments, unsigned short rows)
      : master_(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "ptmx")) {
    const int unlocked = 0;
    must(::ioctl(master_.get(), TIOCSPTLCK, &unlocked), "TIOCSPTLCK");
    // With O_CLOEXEC the kernel would keep it among the flags of the file, where bash finds it.
    slave_ =
        Descriptor{must(::ioctl(master_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY), "TIOCGPTPEER")};
    must(::fcntl(slave_.get(), F_SETFD, FD_CLOEXEC), "FD_CLOEXEC");
    ::winsize size{};
    size.ws_row = rows, size.ws_col = 80;
    must(::ioctl(master_.get(), TIOCSWINSZ, &size), "TIOCSWINSZ");
    settings_ = settings();
    std::vector<char*> words;
    for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    pid_ = must(::fork(), "fork");
    if (pid_ == 0) {
      ::setsid();
      ::ioctl(slave_.get(), TIOCSCTTY, 0);
      for (const int stream : {0, 1, 2}) ::dup2(slave_.get(), stream);
      ::setenv("TERM", "xterm", 1);
      ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);  // whatever whoever runs the tests has open
      ::execv(words[0], words.data());
      ::_exit(99);
    }
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  ~Window() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }

  void type(const std::string& keys) {
    REQUIRE(::write(master_.get(), keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
  }

  /// The next line on the screen.
  std::string line() {
    std::size_t end;
    while ((end = screen_.find('\n')) == std::string::npos) look();
    std::string line = screen_.substr(0, end);
    screen_.erase(0, end + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return line;
  }

  /// Until that is on the screen, after what has been looked at before.
  void await(const std::string& text) {
    std::size_t at;
    while ((at = screen_.find(text)) == std::string::npos) look();
    screen_.erase(0, at + text.size());
  }

  std::string ask(const std::string& question) {
    type(question + "\n");
    return line();
  }

  /// Until its program has made the terminal its own: before, keys are echoed.
  void await_taken() const {
    const Deadline deadline{kPatience};
    while (is_as_at_first()) {
      if (deadline.passed()) throw std::runtime_error{"nobody takes the terminal"};
      ::sched_yield();
    }
  }

  /// The wait status of its program when that ends, or stops.
  int wait(int options = 0) {
    int status = 0;
    must(::waitpid(pid_, &status, options), "waitpid");
    if (!WIFSTOPPED(status)) pid_ = 0;
    return status;
  }

  /// After the library has killed its program, and may have reaped it too.
  void await_end() { ::waitpid(std::exchange(pid_, 0), nullptr, 0); }

  bool is_as_at_first() const {
    const ::termios now = settings();
    return now.c_lflag == settings_.c_lflag && now.c_oflag == settings_.c_oflag &&
           now.c_cc[VQUIT] == settings_.c_cc[VQUIT];
  }

  pid_t foreground() const {
    pid_t group = 0;
    must(::ioctl(master_.get(), TIOCGPGRP, &group), "TIOCGPGRP");
    return group;
  }

 private:
  void look() {
    ::pollfd wait{master_.get(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(kPatience.count())) != 1)
      throw std::runtime_error{"nothing comes: " + screen_};
    char bytes[512];
    const ssize_t count = must(::read(master_.get(), bytes, sizeof bytes), "read the screen");
    screen_.append(bytes, static_cast<std::size_t>(count));
  }

  ::termios settings() const {
    ::termios settings{};
    must(::tcgetattr(slave_.get(), &settings), "tcgetattr");
    return settings;
  }

  Descriptor master_, slave_;
  ::termios settings_{};
  pid_t pid_ = 0;
  std::string screen_;
};

}  // namespace test
