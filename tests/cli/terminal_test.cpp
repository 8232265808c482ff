// SPDX-License-Identifier: Apache-2.0
//
// A program on a terminal comes back on the terminal of whoever restores it.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/wait.h>

#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"
#include "support/window.hpp"

namespace test::terminal_test {

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
