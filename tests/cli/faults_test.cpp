// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong in the middle: no space, no permission, a target that dies, icecore killed or
// asked to stop at any step.  The target runs on, no file is left that looks like an image, and no
// process stays half built.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/syscall.h>

#include <fstream>
#include <set>
#include <sstream>

#include "support/orphans.hpp"
#include "support/private_mounts.hpp"
#include "support/proc_view.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/stepper.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::faults_test {

namespace fs = std::filesystem;

#ifdef ICECORE_SANITIZED
constexpr std::size_t kMoments = 12;  // everything is slower
constexpr std::size_t kKills = 20;
constexpr std::size_t kStride = 7;
#else
constexpr std::size_t kMoments = 40;
constexpr std::size_t kKills = 100;
constexpr std::size_t kStride = 1;
#endif

const Descriptor& nowhere() {
  static const Descriptor null{must(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null")};
  return null;
}

Streams quiet() { return {nowhere().get(), nowhere().get(), nowhere().get()}; }

Arguments snapshot_command(const Target& target, const fs::path& image) {
  return {ICECORE_TOOL, "snapshot", std::to_string(target.pid()), "-o", image, "--no-fsync"};
}

bool empty(const fs::path& folder) {
  return fs::directory_iterator{folder} == fs::directory_iterator{};
}

/// An image that is there must be whole.
void expect_none_or_whole(const fs::path& image) {
  if (!fs::exists(image)) return;
  CHECK(icecore({"verify", image}).status == 0);
  fs::remove(image);
}

/// How many system calls the command makes when nothing disturbs it.
std::size_t count_steps(const Arguments& command) {
  Stepper stepper{command, quiet()};
  REQUIRE(stepper.finish() == 0);
  return stepper.steps();
}

// ---- files -------------------------------------------------------------------------------------

TEST_CASE("a full disk ends a snapshot and leaves nothing") {
  TemporaryFolder folder;
  std::optional<PrivateMounts> mounts;
  try {
    mounts.emplace();
    mounts->mount_memory(folder.path(), "4m");
  } catch (const std::system_error& error) {
    return skip(error.what());
  }
  const std::string encoding = GENERATE("raw", "zstd");
  Target target{"large_memory", {"16"}};
  Arguments command = snapshot_command(target, folder / "image");
  command.insert(command.end(), {"--compress", encoding});
  const Outcome outcome = run(command);
  INFO(outcome.err);
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("No space left on device"));
  CHECK(empty(folder.path()));
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("a folder that cannot be written ends a snapshot before the target is touched") {
  TemporaryFolder folder;
  Target target{"tiny"};
  const auto expect_failure = [&](const fs::path& image, const std::string& words) {
    const Outcome outcome = run(snapshot_command(target, image));
    INFO(outcome.err);
    CHECK(outcome.status == 1);
    CHECK_THAT(outcome.err, Catch::Contains(words) && Catch::Contains(image.parent_path()));
    CHECK(target.running());
  };
  expect_failure(folder / "missing/image", "No such file or directory");
  std::ofstream{folder / "file"};
  expect_failure(folder / "file/image", "Not a directory");
  fs::create_directory(folder / "image");
  expect_failure(folder / "image", "directory");
  CHECK(empty(folder / "image"));

  fs::create_directory(folder / "read_only");
  try {
    PrivateMounts mounts;
    mounts.mount_memory(folder / "read_only", "1m", MS_RDONLY);
    Target beside{"tiny"};  // in the same mount namespace as icecore
    const Outcome outcome = run(snapshot_command(beside, folder / "read_only/image"));
    INFO(outcome.err);
    CHECK(outcome.status == 1);
    CHECK_THAT(outcome.err, Catch::Contains("Read-only file system"));
    CHECK(beside.running());
  } catch (const std::system_error& error) {
    skip(error.what());
  }
}

TEST_CASE("a folder without permission ends a snapshot") {
  const Arguments without = {"setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"};
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  TemporaryFolder folder;
  fs::create_directory(folder / "closed");
  must(::chown((folder / "closed").c_str(), 65534, 65534), "chown");
  fs::permissions(folder / "closed", fs::perms::owner_all);

  Arguments command = without;
  command.push_back(target_path("tiny"));
  Target target = Target::of_command(command);
  command = without;
  for (const std::string& word : snapshot_command(target, folder / "closed/image"))
    command.push_back(word);
  const Outcome outcome = run(command);
  INFO(outcome.err);
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("Permission denied"));
  CHECK(empty(folder / "closed"));
  CHECK(target.running());
}

TEST_CASE("an image that is replaced is replaced whole or stays") {
  TemporaryFolder folder;
  Target target{"tiny"};
  REQUIRE(run(snapshot_command(target, folder / "image")).status == 0);
  Target other{"refused_states", {folder.path(), "pidfd"}};
  CHECK(run(snapshot_command(other, folder / "image")).status == 1);
  CHECK(icecore({"verify", folder / "image"}).status == 0);
  const Outcome inspected = icecore({"inspect", folder / "image"});
  CHECK_THAT(inspected.out, Catch::Contains(target_path("tiny")));
  CHECK(run(snapshot_command(target, folder / "image")).status == 0);
}

// ---- icecore dies during a snapshot ------------------------------------------------------------

TEST_CASE("a target runs on when icecore is killed at a stage of a snapshot") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"many_threads", {"20"}};
  REQUIRE(target.ask("check?") == "ok");  // after which its threads have the memory that they need
  const ProcView before = proc_view(target.pid());
  for (const std::string stage :
       {"before the freeze", "frozen", "state read", "pages read", "written", "committed"}) {
    INFO(stage);
    Arguments command = snapshot_command(target, image);
    command.insert(command.begin(), {"env", "ICECORE_DIE_AT=snapshot: " + stage});
    CHECK(run(command).status == 128 + SIGKILL);
    CHECK(target.ask("check?") == "ok");
    for (const std::string& difference : differences(before, proc_view(target.pid())))
      FAIL_CHECK(difference);
    CHECK(fs::exists(image) == (stage == "committed"));
  }
}

TEST_CASE("a target runs on when icecore is killed at any step of a snapshot") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"many_threads", {"5"}};
  REQUIRE(target.ask("check?") == "ok");
  const ProcView before = proc_view(target.pid());
  const std::size_t steps = count_steps(snapshot_command(target, image));
  fs::remove(image);
  const std::size_t stride = std::max<std::size_t>(1, steps / kKills);
  for (std::size_t step = 1; step < steps; step += stride) {
    Stepper stepper{snapshot_command(target, image), quiet()};
    stepper.step(step);
    stepper.kill();
    INFO("step " << step << " of " << steps << ": " << stepper.last_calls());
    REQUIRE(target.ask("check?") == "ok");
    // Memory that icecore had mapped for itself may stay, unused.
    for (const std::string& difference :
         differences(before, proc_view(target.pid()), {"mapping", "status Vm"}))
      FAIL_CHECK(difference);
    expect_none_or_whole(image);
    CHECK(empty(folder.path()));
  }
  REQUIRE(run(snapshot_command(target, image)).status == 0);
  CHECK(target.ask("check?") == "ok");
  Restored restored{image, {.pids = icecore::Pids::in_namespace}};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("every byte of a waiting write comes once when icecore is killed in between its calls") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  const OrphanAdopter adopter;
  Target target{"partial_writes"};
  const Arguments command = snapshot_command(target, image);
  // Looking who else has the pipes open takes thousands of others.
  const std::set<long> counted{SYS_ptrace, SYS_write,  SYS_clone3,
                               SYS_wait4,  SYS_sendto, SYS_setsockopt};
  const std::size_t begin = steps_until("snapshot: GPUs at rest", command, quiet(), counted);
  REQUIRE(target.ask("account?") == "ok");
  const std::size_t end = steps_until("snapshot: frozen", command, quiet(), counted);
  REQUIRE(target.ask("account?") == "ok");
  for (std::size_t step = begin; step <= end; step += kStride) {
    Stepper stepper{command, quiet(), counted};
    REQUIRE(stepper.stop_before(step));
    stepper.kill();
    INFO("before step " << step << ", " << begin << " to " << end << ":" << stepper.last_calls());
    adopter.await_only_child(target.pid());
    REQUIRE(target.ask("account?") == "ok");
  }
}

TEST_CASE("every byte of a waiting write comes once when a signal arrives during a snapshot") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"partial_writes"};
  const std::size_t steps = count_steps(snapshot_command(target, image));
  REQUIRE(target.ask("account?") == "ok");
  int sent = 0;
  for (std::size_t step = 1; step < steps; step += std::max<std::size_t>(1, steps / kMoments)) {
    std::istringstream writers{target.ask("writers?")};
    Stepper stepper{snapshot_command(target, image), quiet()};
    stepper.step(step);
    for (pid_t writer; writers >> writer; ++sent)
      must(::syscall(SYS_tgkill, target.pid(), writer, SIGUSR1), "tgkill");
    CHECK(stepper.finish() == 0);
    INFO("at step " << step << " of " << steps << ": " << stepper.last_calls());
    REQUIRE(target.ask("account?") == "ok");
    CHECK(target.ask("interrupted?") == std::to_string(sent));
  }
}

TEST_CASE("a target that dies during a snapshot is gone for icecore and nothing hangs") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  std::size_t steps = 0;
  {
    Target target{"many_threads", {"20"}};
    steps = count_steps(snapshot_command(target, image));
  }
  fs::remove(image);
  for (std::size_t moment = 1; moment < kMoments; ++moment) {
    INFO("step " << steps * moment / kMoments << " of " << steps);
    Target target{"many_threads", {"20"}};
    Stepper stepper{snapshot_command(target, image), quiet()};
    stepper.step(steps * moment / kMoments);
    target.process().signal(SIGKILL);
    const int status = stepper.finish();
    CHECK((status == 0 || status == 1));
    CHECK(fs::exists(image) == (status == 0));
    expect_none_or_whole(image);
    CHECK(empty(folder.path()));
    target.process().await_end();
  }
}

TEST_CASE("a snapshot that is interrupted leaves no file and a target that runs") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"large_memory", {"64"}};
  const Arguments command = snapshot_command(target, image);
  const std::size_t steps = count_steps(command);
  fs::remove(image);
  for (std::size_t moment = 1; moment < 8; ++moment) {
    INFO("step " << steps * moment / 8 << " of " << steps);
    Stepper stepper{command, quiet()};
    stepper.step(steps * moment / 8);
    ::kill(stepper.pid(), SIGINT);
    const int status = stepper.finish();
    CHECK((status == 128 + SIGINT || status == 0));
    CHECK(fs::exists(image) == (status == 0));
    expect_none_or_whole(image);
    CHECK(empty(folder.path()));
    REQUIRE(target.ask("check?") == "ok");
  }
}

/// Waits until another process traces this one.
void await_freeze(pid_t pid) {
  const Deadline deadline{kPatience};
  while (proc_view(pid)["status TracerPid"] == "0")
    if (deadline.passed()) throw std::runtime_error{"never frozen"};
}

TEST_CASE("control-C ends the snapshot of a large target at once") {
  TemporaryFolder folder;
  Target target{"large_memory", {"1024"}};
  Process snapshot = Process::start(snapshot_command(target, folder / "image"), quiet());
  await_freeze(target.pid());
  snapshot.signal(SIGINT);
  CHECK(exit_status(snapshot.wait()) == 128 + SIGINT);
  CHECK(empty(folder.path()));
  CHECK(target.ask("sample?") == "ok");
}

// ---- restore -----------------------------------------------------------------------------------

/// An image whose process is gone.
struct RestoreFixture {
  TemporaryFolder folder;
  std::string secret;

  explicit RestoreFixture(const std::string& name, const Arguments& arguments = {}) {
    Target target{name, arguments};
    secret = target.ask("secret?");
    icecore::snapshot(target.pid(), image(), {.kill = true, .fsync = false});
    target.process().await_end();
  }

  fs::path image() const { return folder / "image"; }

  Arguments command(const std::string& pids) const {
    return {ICECORE_TOOL, "restore", image(), "--pids", pids};
  }
};

TEST_CASE("nothing half built stays when icecore is killed at a stage of a restore") {
  const std::string pids = GENERATE("same", "namespace");
  RestoreFixture fixture{"many_threads", {"20"}};
  OrphanAdopter adopter;
  for (const std::string stage :
       {"checked", "started", "mapped", "filled", "threads made", "ready"}) {
    INFO(stage);
    Conversation conversation = make_conversation();
    Arguments command = fixture.command(pids);
    command.insert(command.begin(), {"env", "ICECORE_DIE_AT=restore: " + stage});
    Process tool = Process::start(command, conversation.streams());
    CHECK(exit_status(tool.wait()) == 128 + SIGKILL);
    CHECK(adopter.find_half_built(conversation) == "");
  }
  Restored restored{fixture.image()};
  CHECK(restored.ask("secret?") == fixture.secret);
}

/// How many system calls a restore makes until its process ends.
std::size_t count_restore_steps(const RestoreFixture& fixture, const std::string& pids) {
  Conversation conversation = make_conversation();
  conversation.tell("exit 0");
  Stepper stepper{fixture.command(pids), conversation.streams()};
  REQUIRE(stepper.finish() == 0);
  return stepper.steps();
}

TEST_CASE("nothing half built stays when icecore is killed at any step of a restore") {
  const std::string pids = GENERATE("same", "namespace");
  RestoreFixture fixture{"many_threads", {"5"}};
  const std::size_t steps = count_restore_steps(fixture, pids);
  OrphanAdopter adopter;
  for (std::size_t step = 1; step < steps; step += std::max<std::size_t>(1, steps / kKills)) {
    Conversation conversation = make_conversation();
    conversation.tell("exit 0");  // as when the steps were counted
    Stepper stepper{fixture.command(pids), conversation.streams()};
    stepper.step(step);
    stepper.kill();
    INFO("step " << step << " of " << steps << ": " << stepper.last_calls());
    REQUIRE(adopter.find_half_built(conversation) == "");
  }
  Restored restored{fixture.image()};
  CHECK(restored.ask("secret?") == fixture.secret);
}

TEST_CASE("a restore that is interrupted leaves nothing running") {
  RestoreFixture fixture{"large_memory", {"64"}};
  const std::size_t steps = count_restore_steps(fixture, "same");
  OrphanAdopter adopter;
  for (std::size_t moment = 1; moment < 8; ++moment) {
    INFO("step " << steps * moment / 8 << " of " << steps);
    Conversation conversation = make_conversation();
    Stepper stepper{fixture.command("same"), conversation.streams()};
    stepper.step(steps * moment / 8);
    ::kill(stepper.pid(), SIGINT);
    CHECK(stepper.finish() == 128 + SIGINT);  // its own, or passed on to the process
    CHECK(adopter.find_half_built(conversation) == "");
  }
}

TEST_CASE("two restores at once do not disturb each other") {
  RestoreFixture fixture{"many_threads", {"50"}};
  for (int round = 0; round < 5; ++round) {
    RestoredByTool first{fixture.image()}, second{fixture.image()};
    CHECK(first.ask("secret?") == fixture.secret);
    CHECK(second.ask("secret?") == fixture.secret);
    CHECK(first.ask("check?") == "ok");
    CHECK(second.ask("check?") == "ok");
  }
}

}  // namespace test::faults_test
