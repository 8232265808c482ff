// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong between the driver, its helper and a process: the process goes on using its GPU,
// or the message says that it is lost.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <fstream>
#include <thread>

#include "gpu/fake_gpu.hpp"
#include "support/proc_view.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/stepper.hpp"

namespace test::gpu_faults_test {

namespace fs = std::filesystem;

std::string name_of(pid_t pid) {
  std::string name;
  std::ifstream{"/proc/" + std::to_string(pid) + "/comm"} >> name;
  return name;
}

void kill_helper_of(pid_t tool) {
  for (const pid_t child : children_of(tool))
    if (name_of(child) == "icecore-gpu") {
      must(::kill(child, SIGKILL), "kill");
      return;
    }
  throw std::runtime_error{"no helper"};
}

pid_t driver_thread_of(pid_t pid) {
  for (const auto& task : fs::directory_iterator{"/proc/" + std::to_string(pid) + "/task"}) {
    const pid_t tid = std::stoi(task.path().filename());
    if (name_of(tid) == "cuda00000000001") return tid;
  }
  throw std::runtime_error{"no thread of the driver"};
}

std::string message_of_snapshot(pid_t pid, const fs::path& image,
                                icecore::SnapshotOptions options) {
  options.fsync = false;
  try {
    icecore::snapshot(pid, image, options);
  } catch (const icecore::Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("gpu: the test driver does what the documentation says", "[gpu]") {
  FakeGpu gpu;
  const Outcome outcome = run({ICECORE_FAKE_CUDA_DIR "/gpu_conformance", FakeGpu::library()});
  INFO(outcome.out);
  CHECK(outcome.status == 0);
}

TEST_CASE("gpu: work that does not end keeps a process from being snapshotted", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  CHECK(target.ask("spin 1000000000") == "ok");
  const Outcome outcome = icecore(
      {"snapshot", std::to_string(target.pid()), "-o", folder / "image", "--gpu-patience", "0.2"});
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("cuCheckpointProcessLock") &&
                              Catch::Contains("NOT_READY") && Catch::Contains("still at work"));
  CHECK_FALSE(fs::exists(folder / "image"));
  const std::string rounds = target.ask("rounds");
  const Deadline deadline{kPatience};
  while (target.ask("rounds") == rounds) REQUIRE_FALSE(deadline.passed());
}

TEST_CASE("gpu: a snapshot survives the death of its helper, or leaves all as it was", "[gpu]") {
  const std::string stage = GENERATE("lock", "checkpoint", "restore");
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject(stage + " slow 700");
  Process tool = Process::start({ICECORE_TOOL, "snapshot", std::to_string(target.pid()), "-o",
                                 folder / "image", "--no-fsync"},
                                {});
  gpu.await_beginning();
  gpu.inject("");
  kill_helper_of(tool.pid());
  const int status = exit_status(tool.wait());
  INFO(stage);
  // Once the image is there nothing of it is lost: another helper goes on.
  CHECK(status == (stage == "restore" ? 0 : 1));
  CHECK(target.ask("check?") == "ok");
  CHECK(FakeGpu::call("state", target.pid()) == "0, state 0");
}

TEST_CASE("gpu: a restore whose helper dies leaves nothing", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.inject("restore slow 700");
  Process tool = Process::start({ICECORE_TOOL, "restore", folder / "image"}, {});
  gpu.await_beginning();
  kill_helper_of(tool.pid());
  CHECK(exit_status(tool.wait()) == 125);
  CHECK(::kill(target.pid(), 0) != 0);
  gpu.inject("");
  gpu.restart();
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: icecore may die at any moment", "[gpu]") {
  const std::string moment =
      GENERATE("snapshot: GPUs at rest", "snapshot: frozen", "snapshot: GPU memory saved",
               "snapshot: state read", "snapshot: pages read");
  FakeGpu gpu;
  TemporaryFolder folder;
  // No other threads: while its memory is away cuStreamSynchronize is deadly, and nobody stops it
  // then.
  Target target = gpu_target({"quiet"});
  gpu.set("ICECORE_DIE_AT", moment);
  const Outcome outcome =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"});
  INFO(moment);
  CHECK(outcome.status == 128 + SIGKILL);
  CHECK(target.ask("check?") == "ok");
  FakeGpu::unset("ICECORE_DIE_AT");
  CHECK(FakeGpu::call("state", target.pid()) == "0, state 0");
}

TEST_CASE("gpu: a driver that is slow is given up and everything undone", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject("checkpoint slow 1500");
  const std::string message = message_of_snapshot(
      target.pid(), folder / "image", {.gpu_move_patience = std::chrono::milliseconds{300}});
  CHECK_THAT(message, Catch::Contains("no answer from the driver within 300 ms; before 610"));
  CHECK_THAT(message, !Catch::Contains("lost"));
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: a driver that hangs leaves a process that is stopped, and says so", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject("checkpoint hang");
  const std::string message = message_of_snapshot(
      target.pid(), folder / "image", {.gpu_move_patience = std::chrono::milliseconds{300}});
  CHECK_THAT(message, Catch::Contains("is lost, and left stopped"));
  CHECK_FALSE(fs::exists(folder / "image"));
  CHECK_FALSE(target.process().ended());
  siginfo_t info{};
  must(::waitid(P_PID, static_cast<id_t>(target.pid()), &info, WSTOPPED | WNOWAIT), "waitid");
  CHECK(info.si_status == SIGSTOP);
}

TEST_CASE("gpu: memory that does not come back is in the image", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  const std::string secret = target.ask("secret?");
  gpu.inject("restore fail 2");
  const std::string message = message_of_snapshot(target.pid(), folder / "image", {});
  CHECK_THAT(message, Catch::Contains("is lost, and left stopped") &&
                          Catch::Contains("not enough free memory in the GPU") &&
                          Catch::Contains("image"));
  target.process().signal(SIGKILL);
  target.process().await_end();
  gpu.inject("");
  gpu.restart();
  Restored restored{folder / "image"};
  CHECK(restored.ask("secret?") == secret);
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: a process that dies while its memory is saved", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject("checkpoint die");
  const std::string message = message_of_snapshot(target.pid(), folder / "image", {});
  CHECK_THAT(message, Catch::Contains("ended while its device memory was saved") &&
                          Catch::Contains("memory.max"));
  CHECK_FALSE(fs::exists(folder / "image"));
  CHECK(target.process().ended(kPatience));
}

TEST_CASE("gpu: a restore without enough device memory says so and leaves nothing", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  const pid_t pid = target.pid();
  icecore::snapshot(pid, folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.set("FAKE_REFUSE_MEMORY", "1");
  gpu.restart();
  const Outcome outcome = icecore({"restore", folder / "image"});
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains("cuCheckpointProcessRestore: CUDA_ERROR_OUT_OF_MEMORY") &&
                              Catch::Contains("cannot try again"));
  CHECK(::kill(pid, 0) != 0);
  FakeGpu::unset("FAKE_REFUSE_MEMORY");
  gpu.restart();
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: a storm of signals does not stop the driver's thread", "[gpu]") {
  const std::string call = GENERATE("checkpoint", "restore");
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject(call + " storm 20000");  // by itself: as fast as it can go, and each of them comes
  CHECK(message_of_snapshot(target.pid(), folder / "image", {}) == "");
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: a storm of signals from elsewhere does not stop the driver's thread", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  const pid_t tid = driver_thread_of(target.pid());
  gpu.inject("checkpoint slow 100");
  std::atomic<bool> done = false;
  std::thread storm{[&] {
    gpu.await_beginning();
    while (!done)
      for (const int signal : {SIGWINCH, SIGCONT, SIGURG})
        ::syscall(SYS_tgkill, target.pid(), tid, signal);
  }};
  const std::string message = message_of_snapshot(target.pid(), folder / "image", {});
  done = true;
  storm.join();
  CHECK(message == "");
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: a SIGSTOP while the driver works is put off, not lost", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject("checkpoint slow 300");
  std::thread sender{[&] {
    gpu.await_beginning();
    target.process().signal(SIGSTOP);
  }};
  const std::string message = message_of_snapshot(target.pid(), folder / "image", {});
  sender.join();
  CHECK(message == "");
  siginfo_t info{};
  must(::waitid(P_PID, static_cast<id_t>(target.pid()), &info, WSTOPPED | WNOWAIT), "waitid");
  CHECK(info.si_status == SIGSTOP);
  target.process().signal(SIGCONT);
  CHECK(target.ask("check?") == "ok");
}

/// All that the documentation says, and what was seen beyond it.
TEST_CASE("gpu: every error of the driver is told, and the process goes on", "[gpu]") {
  struct Failure {
    const char* injected;
    std::vector<std::string> words;
  };
  const auto failure = GENERATE(
      Failure{"state fail 3", {"GetState", "NOT_INITIALIZED (3)"}},
      Failure{"lock fail 1", {"Lock", "INVALID_VALUE (1)"}},
      Failure{"lock fail 3", {"Lock", "NOT_INITIALIZED (3)"}},
      Failure{"lock fail 304", {"Lock", "OPERATING_SYSTEM (304)", "cannot reach the process"}},
      Failure{"lock fail 401", {"Lock", "ILLEGAL_STATE (401)", "somebody else"}},
      Failure{"lock fail 600", {"Lock", "NOT_READY (600)", "still at work"}},
      Failure{"lock fail 801", {"Lock", "NOT_SUPPORTED (801)", "CUDA IPC", "MPS"}},
      Failure{"checkpoint fail 1", {"Checkpoint", "INVALID_VALUE (1)"}},
      Failure{"checkpoint fail 2", {"Checkpoint", "OUT_OF_MEMORY (2)", "not enough memory", "MIG"}},
      Failure{"checkpoint fail 3", {"Checkpoint", "NOT_INITIALIZED (3)"}},
      Failure{"checkpoint fail 304", {"Checkpoint", "OPERATING_SYSTEM (304)"}},
      Failure{"checkpoint fail 401", {"Checkpoint", "ILLEGAL_STATE (401)"}},
      Failure{"checkpoint fail 801", {"Checkpoint", "NOT_SUPPORTED (801)", "managed memory"}});
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  gpu.inject(failure.injected);
  const std::string message = message_of_snapshot(target.pid(), folder / "image", {});
  INFO(failure.injected << ": " << message);
  for (const std::string& word : failure.words) CHECK_THAT(message, Catch::Contains(word));
  CHECK_FALSE(fs::exists(folder / "image"));
  gpu.inject("");
  CHECK(target.ask("check?") == "ok");
  CHECK(FakeGpu::call("state", target.pid()) == "0, state 0");
}

TEST_CASE("gpu: every error of the driver in a restore is told, and leaves nothing", "[gpu]") {
  struct Failure {
    const char* injected;
    std::vector<std::string> words;
  };
  const std::vector<Failure> failures = {
      {"restore fail 1", {"Restore", "INVALID_VALUE (1)", "CUDA IPC, before driver 610"}},
      {"restore fail 2", {"Restore", "OUT_OF_MEMORY (2)", "cannot try again"}},
      {"restore fail 3", {"Restore", "NOT_INITIALIZED (3)"}},
      {"restore fail 304", {"Restore", "OPERATING_SYSTEM (304)"}},
      {"restore fail 401", {"Restore", "ILLEGAL_STATE (401)"}},
      {"restore fail 800", {"Restore", "NOT_PERMITTED (800)", "persistence mode"}},
      {"restore fail 801", {"Restore", "NOT_SUPPORTED (801)"}},
      {"unlock fail 401", {"Unlock", "ILLEGAL_STATE (401)"}}};
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  const pid_t pid = target.pid();
  icecore::snapshot(pid, folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  for (const Failure& failure : failures) {
    gpu.restart();
    gpu.inject(failure.injected);
    const Outcome outcome = icecore({"restore", folder / "image"});
    INFO(failure.injected << ": " << outcome.err);
    CHECK(outcome.status == 125);
    for (const std::string& word : failure.words) CHECK_THAT(outcome.err, Catch::Contains(word));
    CHECK(::kill(pid, 0) != 0);
  }
  gpu.restart();
  gpu.inject("");
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: what somebody else has locked or checkpointed stays so", "[gpu]") {
  const bool checkpointed = GENERATE(false, true);
  const std::string state = checkpointed ? "0, state 2" : "0, state 1";
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target({"quiet"});
  const pid_t pid = target.pid();
  const auto bring_back = [&] {
    CHECK(FakeGpu::call("state", pid) == state);
    if (checkpointed) CHECK(FakeGpu::call("restore", pid) == "0, state 1");
    CHECK(FakeGpu::call("unlock", pid) == "0, state 0");
  };
  REQUIRE(FakeGpu::call("lock", pid) == "0, state 1");
  if (checkpointed) REQUIRE(FakeGpu::call("checkpoint", pid) == state);
  CHECK(message_of_snapshot(pid, folder / "image", {}).empty());
  bring_back();
  CHECK(target.ask("check?") == "ok");
  target.process().signal(SIGKILL);
  target.process().await_end();

  gpu.restart();
  Restored restored{folder / "image", {.pids = icecore::Pids::same}};
  bring_back();
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: a process that begins with CUDA during a snapshot", "[gpu]") {
  FakeGpu gpu;
  for (const std::size_t moment : {20U, 60U, 90U, 120U, 150U, 180U, 220U, 300U, 400U}) {
    INFO(moment);
    TemporaryFolder folder;
    Target target = gpu_target({"late", "quiet"});
    {
      Descriptor nowhere{must(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null")};
      Stepper icecore{{ICECORE_TOOL, "snapshot", std::to_string(target.pid()), "-o",
                       folder / "image", "--no-fsync"},
                      {nowhere.get(), nowhere.get(), nowhere.get()}};
      const bool still_there = icecore.step(moment);
      target.conversation().tell("init");
      if (still_there) icecore.finish();
    }
    CHECK(target.conversation().hear() == "ok");
    CHECK(target.ask("check?") == "ok");
    if (!fs::exists(folder / "image")) continue;
    target.process().signal(SIGKILL);
    target.process().await_end();
    gpu.restart();
    Restored restored{folder / "image"};
    CHECK(restored.ask("check?") == "ok");
  }
}

}  // namespace test::gpu_faults_test
