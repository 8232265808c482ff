// SPDX-License-Identifier: Apache-2.0
//
// Programs that live on a terminal go on in another window, of another size.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include <fstream>
#include <iterator>

#include "support/skip.hpp"
#include "support/temporary_folder.hpp"
#include "support/window.hpp"

namespace test::terminal_programs_test {

constexpr unsigned short kRows = 24, kOtherRows = 50;

std::string stat_of(pid_t pid) {
  std::ifstream file{fmt::format("/proc/{}/stat", pid)};
  std::string line;
  std::getline(file, line);
  return line;
}

bool is_asleep(pid_t pid) { return stat_of(pid).find(") S ") != std::string::npos; }

bool is_alone(pid_t pid) {
  std::ifstream children{fmt::format("/proc/{}/task/{}/children", pid, pid)};
  return children.peek() == std::ifstream::traits_type::eof();
}

/// Any program, in a window; then in another one.
class Session {
 public:
  explicit Session(const Arguments& command) { window_.emplace(command, kRows); }

  Window& window() { return *window_; }

  /// Once it waits for keys: less forgets a new size that it is told of before; emacs may have
  /// started others.
  void move() {
    await([&] { return is_asleep(window_->pid()) && is_alone(window_->pid()); },
          "it does not wait for keys");
    const auto image = folder_ / "image";
    icecore::snapshot(window_->pid(), image, {.kill = true, .fsync = false});
    window_->await_end();
    window_.emplace(Arguments{ICECORE_TOOL, "restore", image}, kOtherRows);
  }

 private:
  TemporaryFolder folder_;
  std::optional<Window> window_;
};

bool lacks(const std::string& program) {
  if (::access(program.c_str(), X_OK) == 0) return false;
  skip(program + ": not installed");
  return true;
}

/// In the foreground, and waiting for keys.
void await_cat(const Window& window) {
  const auto there = [&] {
    return stat_of(window.foreground()).find(" (cat) S ") != std::string::npos;
  };
  await(there, "cat does not come to the foreground");
}

TEST_CASE("bash goes on in another window, with its jobs and the size of that") {
  Session session{{"/bin/bash", "--norc", "--noprofile", "-i"}};
  session.window().type("PS1='at''hand> ' x=4''2\n");  // the echo shows other words
  session.window().await("athand> ");
  session.window().type("half a line");
  session.window().await("half a line");
  session.move();

  Window& window = session.window();
  window.await("half a line");  // drawn again: the window has another size
  const pid_t shell = window.foreground();
  window.type(
      "\x15"
      "echo x=$x rows=$LINES\n");
  window.await("x=42 rows=50");
  window.await("athand> ");
  window.type("stty size\n");
  window.await("50 80");

  window.await("athand> ");
  window.type("cat\n");
  await_cat(window);
  window.type("\x1a");
  window.await("Stopped");
  window.await("athand> ");
  CHECK(window.foreground() == shell);
  window.type("fg\n");
  await_cat(window);
  window.type("\x03");
  window.await("athand> ");
  window.type("echo status=$?\n");
  window.await("status=130");
  window.type("sleep 1000 & kill %1; wait %1; echo status=$?\n");
  window.await("status=143");
  window.type("exit 7\n");
  CHECK(exit_status(window.wait()) == 7);
  CHECK(window.is_as_at_first());
}

TEST_CASE("vim goes on in another window") {
  if (lacks("/usr/bin/vim")) return;
  const TemporaryFolder folder;
  const std::string file = folder / "text";
  Session session{{"/usr/bin/vim", "-u", "NONE", "-n", file}};
  session.window().await("[New");
  session.window().type("ifirst");
  session.window().await("first");
  session.move();
  Window& window = session.window();
  window.await("first");  // drawn again
  window.type(" line\x1b:set lines?\r");
  window.await("lines=50");
  window.type("\r:wq\r");
  CHECK(exit_status(window.wait()) == 0);
  std::ifstream written{file};
  CHECK(std::string{std::istreambuf_iterator{written}, {}} == "first line\n");
  CHECK(window.is_as_at_first());
}

TEST_CASE("emacs goes on in another window, told of keys by SIGIO") {
  if (lacks("/usr/bin/emacs")) return;
  const TemporaryFolder folder;
  const std::string file = folder / "text";
  Session session{{"/usr/bin/emacs", "-nw", "-Q", "--eval",
                   "(setq native-comp-deferred-compilation nil vc-handled-backends nil)", file}};
  session.window().await("(New file)");
  session.window().type("first");
  session.window().await("first");
  session.move();
  Window& window = session.window();
  window.await("first");  // drawn again
  window.type(" line\r\x18\x13");
  window.await("Wrote");
  window.type("\x18\x03");
  CHECK(exit_status(window.wait()) == 0);
  std::ifstream written{file};
  CHECK(std::string{std::istreambuf_iterator{written}, {}} == "first line\n");
  CHECK(window.is_as_at_first());
}

TEST_CASE("less goes on in another window") {
  if (lacks("/usr/bin/less")) return;
  const TemporaryFolder folder;
  const std::string file = folder / "text";
  {
    std::ofstream text{file};
    for (int i = 0; i < 500; ++i) text << "row " << i << ".\n";
  }
  Session session{{"/usr/bin/less", file}};
  session.window().await("row 22.");
  session.window().type(" ");
  session.window().await("row 45.");
  session.move();
  Window& window = session.window();
  window.await("row 71.");  // one window from where it was
  window.type("G");
  window.await("row 499.");
  window.type("q");
  CHECK(exit_status(window.wait()) == 0);
  CHECK(window.is_as_at_first());
}

TEST_CASE("top goes on in another window") {
  if (lacks("/usr/bin/top")) return;
  Session session{{"/usr/bin/top", "-d", "100"}};
  session.window().await("PID");
  session.move();
  session.window().await("PID");
  session.window().type("q");
  CHECK(exit_status(session.window().wait()) == 0);
  CHECK(session.window().is_as_at_first());
}

}  // namespace test::terminal_programs_test
