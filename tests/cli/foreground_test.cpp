// SPDX-License-Identifier: Apache-2.0
//
// `icecore restore` in the foreground stands for the process that it restored: streams, signals,
// exit status.  With --detach it leaves it alone.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>

#include "support/orphans.hpp"
#include "support/private_mounts.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::foreground_test {

struct Fixture {
  TemporaryFolder folder;
  pid_t pid = 0;
  std::string secret;

  explicit Fixture(const std::string& name = "tiny") {
    Target target{name};
    pid = target.pid();
    secret = target.ask("secret?");
    icecore::snapshot(target.pid(), image(), {.kill = true, .fsync = false});
    target.process().await_end();
  }
  std::filesystem::path image() const { return folder / "image"; }
};

TEST_CASE("restore ends with the status of its process") {
  Fixture fixture;
  for (const int status : {0, 7, 125}) {
    RestoredByTool restored{fixture.image()};
    restored.conversation().tell("exit " + std::to_string(status));
    CHECK(exit_status(restored.tool().wait()) == status);
  }
}

TEST_CASE("restore ends with 128 and the signal that ended its process") {
  const std::string pids = GENERATE("same", "namespace");
  Fixture fixture;
  for (const int signal : {SIGKILL, SIGSEGV, SIGTERM}) {
    RestoredByTool restored{fixture.image(), {"--pids", pids}};
    REQUIRE(restored.running());
    if (pids == "same") {
      must(::kill(restored.pid(), signal), "kill");
      CHECK(exit_status(restored.tool().wait()) == 128 + signal);
    } else if (signal == SIGTERM) {
      restored.tool().signal(signal);
      CHECK(exit_status(restored.tool().wait()) == 128 + signal);
    }
  }
}

TEST_CASE("signals sent to restore reach its process") {
  Fixture fixture;
  for (const int signal : {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1}) {
    INFO("signal " << signal);
    RestoredByTool restored{fixture.image()};
    REQUIRE(restored.running());
    const pid_t process = restored.pid();
    restored.tool().signal(signal);
    CHECK(exit_status(restored.tool().wait()) == 128 + signal);
    CHECK(::kill(process, 0) == -1);
  }
}

TEST_CASE("a signal that the process handles does not end restore") {
  Fixture fixture{"signal_actions"};
  RestoredByTool restored{fixture.image()};
  REQUIRE(restored.running());
  restored.tool().signal(SIGUSR1);  // handled, with SA_RESTART
  restored.tool().signal(SIGHUP);   // ignored
  CHECK(restored.running());
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("the end of standard input ends the process and restore with it") {
  Fixture fixture;
  RestoredByTool restored{fixture.image()};
  REQUIRE(restored.running());
  restored.conversation().hang_up();
  CHECK(exit_status(restored.tool().wait()) == 0);
}

TEST_CASE("restore --detach prints the pid and leaves the process running") {
  Fixture fixture;
  OrphanAdopter adopter;
  Conversation conversation = make_conversation();
  const std::filesystem::path pid_file = fixture.folder / "pid";
  Process tool =
      Process::start({ICECORE_TOOL, "restore", fixture.image(), "--detach", "--pid-file", pid_file},
                     conversation.streams());
  CHECK(exit_status(tool.wait()) == 0);
  CHECK(conversation.hear() == std::to_string(fixture.pid));
  CHECK(conversation.ask("secret?") == fixture.secret);
  pid_t written = 0;
  std::ifstream{pid_file} >> written;
  CHECK(written == fixture.pid);
  CHECK(conversation.ask("check?") == "ok");
  CHECK(adopter.find_half_built(conversation) == "");
}

/// A root directory that is no mount, with what our programs need in it.
class OtherRoot {
 public:
  /// Throws std::system_error where that is not allowed.
  OtherRoot() {
    for (const std::string name : {"bin", "lib", "lib64"})
      if (std::filesystem::is_symlink("/" + name))
        std::filesystem::copy_symlink("/" + name, root() / name);
      else
        mounts_.show("/" + name, root() / name);
    const std::filesystem::path tool = ICECORE_TOOL;
    for (const std::filesystem::path& shown :
         {std::filesystem::path{"/usr"}, std::filesystem::path{"/dev"},
          std::filesystem::path{ICECORE_TARGET_DIR}, tool.parent_path()})
      mounts_.show(shown, root() / shown.relative_path());
    mounts_.mount_processes(root() / "proc");
  }
  std::filesystem::path root() const { return folder_.path(); }

  Arguments inside(Arguments arguments) const {
    arguments.insert(arguments.begin(), {"/usr/sbin/chroot", root()});
    return arguments;
  }

 private:
  TemporaryFolder folder_;
  PrivateMounts mounts_;
};

TEST_CASE("icecore snapshots and restores in another root directory") {
  std::optional<OtherRoot> other;
  try {
    other.emplace();
  } catch (const std::system_error& error) {
    skip(std::string{"needs a mount namespace: "} + error.what());
    return;
  }
  Conversation original = make_conversation();
  Process process = Process::start(other->inside({ICECORE_TARGET_DIR "/tiny"}), original.streams());
  original.begin();
  REQUIRE(original.hear() == "ready");
  const std::string secret = original.ask("secret?");
  const std::string pid = std::to_string(process.pid());
  const Outcome refused = run({ICECORE_TOOL, "snapshot", "-o", other->root() / "image", pid});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.err, Catch::Contains("nsenter -t " + pid + " -r icecore"));

  const Outcome taken =
      run(other->inside({ICECORE_TOOL, "snapshot", "--no-fsync", "-o", "/image", pid}));
  INFO(taken.err);
  REQUIRE(taken.status == 0);
  Conversation copy = make_conversation();  // in a pid namespace: the original still has its pid
  Process tool = Process::start(other->inside({ICECORE_TOOL, "restore", "/image"}), copy.streams());
  copy.begin();
  CHECK(copy.ask("secret?") == secret);
  CHECK(copy.ask("check?") == "ok");
  CHECK(original.ask("check?") == "ok");
  copy.hang_up();
  CHECK(exit_status(tool.wait()) == 0);
}

}  // namespace test::foreground_test
