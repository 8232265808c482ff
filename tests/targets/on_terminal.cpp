// SPDX-License-Identifier: Apache-2.0
//
// State: a program in the foreground of its terminal, which it has made settings for and also has
// open as /dev/tty, where it is told of input by SIGIO.  Talks through the terminal.
//   "interrupts?"  how many SIGINT have come; "windows?" how many SIGWINCH
//   "rows?"        of the window
#include <sys/ioctl.h>
#include <termios.h>

#include <atomic>
#include <csignal>

#include "target.hpp"

using namespace target;

static std::atomic<int> interrupts = 0, windows = 0, inputs = 0;

int main(int count, char**) {
  // With an argument it needs no more than its standard streams.
  constexpr int kNumber = 50;  // whatever else was inherited
  const int terminal = count > 1 ? 0 : kNumber;
  if (count == 1) {
    const int opened = static_cast<int>(must(::open("/dev/tty", O_RDWR), "/dev/tty"));
    must(::dup2(opened, kNumber), "dup2");
    ::close(opened);
  }
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = [](int) { ++inputs; };
  must(::sigaction(SIGIO, &action, nullptr), "sigaction");
  if (count == 1) {
    must(::fcntl(terminal, F_SETOWN, ::getpid()), "F_SETOWN");
    must(::fcntl(terminal, F_SETFL, O_RDWR | O_ASYNC), "F_SETFL");
  }
  action.sa_handler = [](int) { ++interrupts; };
  must(::sigaction(SIGINT, &action, nullptr), "sigaction");
  action.sa_handler = [](int) { ++windows; };
  must(::sigaction(SIGWINCH, &action, nullptr), "sigaction");
  termios settings{};
  must(::tcgetattr(terminal, &settings), "tcgetattr");
  settings.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON);
  settings.c_oflag &= ~static_cast<tcflag_t>(OPOST);
  settings.c_cc[VQUIT] = 'Q';
  must(::tcsetattr(terminal, TCSANOW, &settings), "tcsetattr");

  const auto check = [=] {
    termios now{};
    must(::tcgetattr(terminal, &now), "tcgetattr");
    require(now.c_lflag == settings.c_lflag && now.c_oflag == settings.c_oflag &&
                now.c_cc[VQUIT] == 'Q',
            "other settings");
    require(::tcgetsid(terminal) == ::getsid(0), "the terminal of another session");
    require(::tcgetpgrp(terminal) == ::getpgrp(), "in the background");
    require(::getpgrp() == ::getpid(), "another process group");
    for (const int stream : {0, 1, 2}) require(::isatty(stream) == 1, "a stream is no terminal");
    if (count > 1) return;
    require(::fcntl(terminal, F_GETOWN) == ::getpid(), "the signals of another");
    require(inputs.exchange(0) > 0, "no SIGIO tells of this question");
  };
  return serve(check, {{"interrupts?", [](auto&) { return std::to_string(interrupts); }},
                       {"windows?", [](auto&) { return std::to_string(windows); }},
                       {"rows?", [=](auto&) {
                          winsize size{};
                          must(::ioctl(terminal, TIOCGWINSZ, &size), "TIOCGWINSZ");
                          return std::to_string(size.ws_row);
                        }}});
}
