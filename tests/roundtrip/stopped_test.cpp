// SPDX-License-Identifier: Apache-2.0
//
// A process that SIGSTOP has stopped stays so, and goes on when it is told to.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include <csignal>
#include <fstream>
#include <string>
#include <thread>

#include "support/patience.hpp"
#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::stopped_test {

/// Of every thread, as "TTT".
std::string states(pid_t pid) {
  std::string states;
  const std::filesystem::path tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& task : std::filesystem::directory_iterator{tasks}) {
    std::string line;
    std::getline(std::ifstream{task.path() / "stat"}, line);
    states += line[line.rfind(')') + 2];
  }
  return states;
}

bool all_stopped(pid_t pid) { return states(pid).find_first_not_of('T') == std::string::npos; }

void await_stop(pid_t pid) {
  const Deadline deadline{kPatience};
  while (!all_stopped(pid) && !deadline.passed()) std::this_thread::yield();
  INFO(states(pid));
  REQUIRE(all_stopped(pid));
}

void go_on(pid_t pid) { REQUIRE(::kill(pid, SIGCONT) == 0); }

TEST_CASE("roundtrip/stopped/runs on", "[roundtrip]") {
  // SIGTSTP stops nobody in a process group that no shell waits for: ours, when the tests
  // themselves run in the background.  The parent of the leader of a new one is in its session.
  ::setpgid(0, 0);
  TemporaryFolder folder;
  Target target{"counting_threads", {"3"}};
  for (const int signal : {SIGSTOP, SIGTSTP}) {
    REQUIRE(::kill(target.pid(), signal) == 0);
    await_stop(target.pid());
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
    await_stop(target.pid());
    go_on(target.pid());
    CHECK(target.ask("check?") == "ok");
  }
}

TEST_CASE("roundtrip/stopped/comes back", "[roundtrip]") {
  TemporaryFolder folder;
  for (const char* name : {"counting_threads", "blocked_in_sigtimedwait"}) {
    Target target{name, {"3"}};
    const std::string secret = target.ask("secret?");
    REQUIRE(::kill(target.pid(), SIGSTOP) == 0);
    await_stop(target.pid());
    icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
    target.process().await_end();
    for (int round = 0; round < 2; ++round) {
      Restored restored{folder / "image"};
      await_stop(restored.pid());
      if (round == 0) {  // once more from there
        icecore::snapshot(restored.pid(), folder / "image", {.kill = true, .fsync = false});
        restored.await_end();
        continue;
      }
      go_on(restored.pid());
      CHECK(restored.ask("secret?") == secret);
      CHECK(restored.ask("check?") == "ok");
    }
  }
}

}  // namespace test::stopped_test
