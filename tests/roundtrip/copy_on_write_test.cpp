// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of processes that run on while their memory is copied.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <thread>

#include "support/control_group.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::copy_on_write_test {

namespace fs = std::filesystem;

const icecore::SnapshotOptions kOnWrite{.copy_on_write = true, .fsync = false};

TEST_CASE("an image is of one moment, however much is written while it is made") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"changing_memory", {"64"}};
  const std::string secret = target.ask("secret?");
  const auto children = children_of(::getpid());
  for (int i = 0; i < 5; ++i) {
    const icecore::SnapshotReport report = icecore::snapshot(target.pid(), image, kOnWrite);
    CHECK(report.copied_on_write);
    CHECK(report.frozen < report.state + report.freeze + report.pages);
    CHECK(children_of(::getpid()) == children);  // nothing is left of the copy
    CHECK(children_of(target.pid()).empty());
    CHECK(target.ask("check?") == "ok");
    Restored restored{image, {.pids = icecore::Pids::in_namespace}};
    CHECK(restored.ask("secret?") == secret);
    CHECK(restored.ask("check?") == "ok");
  }
}

TEST_CASE("memory that a fork does not get is copied while the process stands still") {
  const std::string name = GENERATE("shared_anonymous", "kept_from_forks", "memfds", "segments");
  INFO(name);
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  {
    Target target{name};
    const std::string secret = target.ask("secret?");
    CHECK(!icecore::snapshot(target.pid(), image, kOnWrite).copied_on_write);
    CHECK(target.ask("check?") == "ok");
    CHECK(target.ask("secret?") == secret);
  }
  Restored restored{image};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("a process that has no memory to spare is copied while it stands still") {
  constexpr std::uint64_t kMiB = 1 << 20;
  const ControlGroup group{48 * kMiB};
  if (!group.made()) return skip("no control group with a limit of memory can be made");
  TemporaryFolder folder;
  Target target{"changing_memory", {"64"}};
  CHECK(icecore::snapshot(target.pid(), folder / "image", kOnWrite).copied_on_write);
  group.add(target.pid());  // what it has already does not count there
  CHECK(!icecore::snapshot(target.pid(), folder / "image", kOnWrite).copied_on_write);
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("a copy ends with icecore, and its original does not") {
  TemporaryFolder folder;
  must(::prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl");  // whoever is left is our child
  Conversation conversation = make_conversation();
  Process tool = Process::start({"env", "ICECORE_DIE_AT=snapshot: state read", ICECORE_TOOL, "run",
                                 "-o", folder / "image", "--", target_path("function"), "notify"},
                                conversation.streams());
  conversation.begin();
  CHECK(conversation.hear() == "ready");
  const int status = tool.wait();
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  const Deadline deadline{kPatience};
  while (children_of(::getpid()).size() != 1) {
    while (::waitpid(-1, nullptr, WNOHANG | __WALL) > 0) continue;
    if (deadline.passed()) throw std::runtime_error{"the copy lives on"};
    std::this_thread::yield();
  }
  CHECK(conversation.ask("ping") == "pong");
  conversation.hang_up();
  while (::waitpid(-1, nullptr, __WALL) > 0) continue;
  must(::prctl(PR_SET_CHILD_SUBREAPER, 0), "prctl");
}

TEST_CASE("who is not the parent copies while the process stands still") {
  TemporaryFolder folder;
  Conversation conversation = make_conversation();
  Process tool = Process::start(
      {ICECORE_TOOL, "run", "-o", folder / "unused", "--", target_path("private_anonymous")},
      conversation.streams());
  conversation.begin();
  CHECK(conversation.hear() == "ready");
  CHECK(conversation.ask("check?") == "ok");
  const pid_t pid = children_of(tool.pid()).at(0);
  CHECK(!icecore::snapshot(pid, folder / "image", kOnWrite).copied_on_write);
  CHECK(conversation.ask("check?") == "ok");
  conversation.hang_up();
  CHECK(exit_status(tool.wait()) == 0);
}

}  // namespace test::copy_on_write_test
