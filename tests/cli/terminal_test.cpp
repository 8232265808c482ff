// SPDX-License-Identifier: Apache-2.0
//
// A program on a terminal comes back on the terminal of whoever restores it.
#include <catch2/catch.hpp>
#include <fcntl.h>
#include <icecore/snapshot.hpp>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <utility>

#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::terminal_test {

/// A terminal window, and the program that leads the session in it.
class Window {
 public:
  Window(const Arguments& arguments, unsigned short rows)
      : master_(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "ptmx")) {
    const int unlocked = 0;
    must(::ioctl(master_.get(), TIOCSPTLCK, &unlocked), "TIOCSPTLCK");
    slave_ = Descriptor{
        must(::ioctl(master_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), "TIOCGPTPEER")};
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
    while ((end = screen_.find('\n')) == std::string::npos) {
      ::pollfd wait{master_.get(), POLLIN, 0};
      if (::poll(&wait, 1, static_cast<int>(kPatience.count())) != 1)
        throw std::runtime_error{"nothing comes: " + screen_};
      char bytes[512];
      const ssize_t count = must(::read(master_.get(), bytes, sizeof bytes), "read the screen");
      screen_.append(bytes, static_cast<std::size_t>(count));
    }
    std::string line = screen_.substr(0, end);
    screen_.erase(0, end + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return line;
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

/// A program that was on a terminal of 24 rows, killed.
struct Fixture {
  TemporaryFolder folder;
  std::string secret;

  explicit Fixture(const Arguments& arguments = {}) {
    Arguments command{ICECORE_TARGET_DIR "/on_terminal"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    Window window{command, 24};
    REQUIRE(window.line() == "ready");
    secret = window.ask("secret?");
    CHECK(window.ask("check?") == "ok");
    icecore::snapshot(window.pid(), image(), {.fsync = false});
    CHECK(window.ask("check?") == "ok");
    icecore::snapshot(window.pid(), image(), {.kill = true, .fsync = false});
    window.await_end();
  }
  std::filesystem::path image() const { return folder / "image"; }
};

TEST_CASE("a program on a terminal comes back on the terminal of whoever restores it") {
  const std::string pids = GENERATE("same", "namespace");
  const Fixture fixture;
  Window window{{ICECORE_TOOL, "restore", fixture.image(), "--pids", pids}, 50};
  window.await_taken();
  CHECK(window.ask("secret?") == fixture.secret);
  CHECK(window.ask("rows?") == "50");
  CHECK(window.ask("windows?") == "1");
  if (pids == "same") CHECK(window.ask("check?") == "ok");
  CHECK(window.foreground() != window.pid());

  CHECK(window.ask("interrupts?") == "0");
  window.type("\x03");
  while (window.ask("interrupts?") != "1") {
  }

  window.type("exit 7\n");
  CHECK(exit_status(window.wait()) == 7);
  CHECK(window.is_as_at_first());
}

TEST_CASE("a restored program that is stopped by a key goes on in the foreground") {
  const Fixture fixture;
  Window window{{ICECORE_TOOL, "restore", fixture.image()}, 24};
  window.await_taken();
  CHECK(window.ask("check?") == "ok");
  CHECK(window.ask("windows?") == "0");
  window.type("\x1a");
  REQUIRE(WIFSTOPPED(window.wait(WUNTRACED)));
  // As the fg of a shell does.
  const pid_t group = window.pid();
  must(::kill(-group, SIGCONT), "kill");
  CHECK(window.ask("check?") == "ok");
  window.type("exit 0\n");
  CHECK(exit_status(window.wait()) == 0);
  CHECK(window.is_as_at_first());
}

TEST_CASE("a terminal is as it was after the restored program on it was killed") {
  const Fixture fixture;
  Window window{{ICECORE_TOOL, "restore", fixture.image()}, 24};
  window.await_taken();
  CHECK(window.ask("check?") == "ok");
  window.type("Q");  // its key for SIGQUIT
  CHECK(exit_status(window.wait()) == 128 + SIGQUIT);
  CHECK(window.is_as_at_first());
}

TEST_CASE("a program that uses its controlling terminal needs one, or something in its place") {
  const Fixture fixture;
  const Arguments without_terminal{"setsid", "-w", ICECORE_TOOL, "restore", fixture.image()};
  Outcome outcome = run(without_terminal);
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains("fd 50: led to the controlling terminal (/dev/tty), and "
                                          "whoever restores has none"));
  CHECK_THAT(outcome.err, Catch::Contains("--external 50=PATH"));

  Arguments with_file = without_terminal;
  with_file.insert(with_file.end(), {"--external", "50=/dev/null"});
  outcome = run(with_file);
  CHECK(outcome.status == 0);  // at the end of its input
}

TEST_CASE("a program that has no more than its streams of a terminal comes back on pipes too") {
  const Fixture fixture{{"streams"}};
  RestoredByTool restored{fixture.image()};
  CHECK(restored.ask("secret?") == fixture.secret);
  CHECK_THAT(restored.ask("check?"), Catch::StartsWith("wrong: "));  // it sees that
}

}  // namespace test::terminal_test
