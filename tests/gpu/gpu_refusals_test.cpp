// SPDX-License-Identifier: Apache-2.0
//
// What is refused of a process with device memory, and of an image of one: by name, before anything
// is changed, and the process runs on.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/wait.h>

#include "gpu/fake_gpu.hpp"
#include "support/control_group.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"

namespace test::gpu_refusals_test {

/// Exit status 1 and all of `words`; no image; and the process goes on using its GPU.
void expect_refused(Target& target, const Arguments& options,
                    const std::vector<std::string>& words) {
  TemporaryFolder folder;
  Arguments command = {"snapshot", std::to_string(target.pid()), "-o", folder / "image"};
  command.insert(command.end(), options.begin(), options.end());
  const Outcome outcome = icecore(command);
  INFO(outcome.err);
  CHECK(outcome.status == 1);
  for (const std::string& word : words) CHECK_THAT(outcome.err, Catch::Contains(word));
  CHECK_FALSE(std::filesystem::exists(folder / "image"));
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: --gpu none refuses a process that uses a GPU", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target();
  expect_refused(target, {"--gpu", "none"}, {"nvidiactl", "--gpu none"});
}

TEST_CASE("gpu: managed memory is refused", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target({"managed"});
  expect_refused(target, {}, {"managed memory", "cudaMalloc"});
}

TEST_CASE("gpu: shared device memory is refused by the driver", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target({"shared"});
  expect_refused(target, {}, {"CUDA_ERROR_NOT_SUPPORTED (801)", "CUDA IPC, before driver 610"});
}

/// What the driver refuses without saying why, and a sign of which icecore has seen.
TEST_CASE("gpu: what the driver cannot save is named where it shows", "[gpu]") {
  struct Use {
    const char* variable;
    const char* value;
    std::vector<std::string> words;
  };
  const auto use = GENERATE(
      Use{"FAKE_MIG",
          "1",
          {"CUDA_ERROR_OUT_OF_MEMORY (2)", "(MIG; fd ", "nvidia-caps/nvidia-cap3)"}},
      Use{"CUDA_MPS_PIPE_DIRECTORY",
          "/run/mps",
          {"CUDA_ERROR_NOT_SUPPORTED (801)", "use MPS (CUDA_MPS_PIPE_DIRECTORY=/run/mps)"}},
      Use{"CUDA_INJECTION64_PATH",
          "/opt/libtool.so",
          {"CUDA_ERROR_NOT_SUPPORTED (801)", "(CUPTI) (CUDA_INJECTION64_PATH=/opt/libtool.so)"}});
  FakeGpu gpu;
  Target without = gpu_target();
  gpu.set(use.variable, use.value);
  Target target = gpu_target();
  expect_refused(target, {}, use.words);
  FakeGpu::unset(use.variable);
  TemporaryFolder folder;
  CHECK(icecore({"snapshot", std::to_string(without.pid()), "-o", folder / "image"}).status == 0);
}

TEST_CASE("gpu: a driver that is too old is refused", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target();
  gpu.set("ICECORE_LIBCUDA", FakeGpu::library("old"));
  gpu.set("FAKE_VERSION", "12040");
  expect_refused(target, {}, {"CUDA 12.4", "570"});
}

TEST_CASE("gpu: the stub of the toolkit is refused", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target();
  gpu.set("FAKE_DRIVER", "stub");
  expect_refused(target, {}, {"stub"});
}

TEST_CASE("gpu: no device, and no driver, are refused", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target();
  gpu.set("FAKE_DRIVER", "no_device");
  expect_refused(target, {}, {"finds no GPU"});
  gpu.set("ICECORE_LIBCUDA", "/nowhere/libcuda.so.1");
  expect_refused(target, {}, {"/nowhere/libcuda.so.1", "install the NVIDIA driver"});
}

TEST_CASE("gpu: a device that is open without CUDA is refused", "[gpu]") {
  FakeGpu gpu;
  const std::string device = gpu / "nvidiactl";
  Target target = Target::of_command(
      {"bash", "-c", "exec 5<\"$0\"; echo ready; while read -r; do echo ok; done", device});
  expect_refused(target, {}, {"fd 5: " + device, "NVML"});
}

TEST_CASE("gpu: a process that is stopped is refused", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  target.process().signal(SIGSTOP);
  siginfo_t info{};
  must(::waitid(P_PID, static_cast<id_t>(target.pid()), &info, WSTOPPED | WNOWAIT), "waitid");
  const Outcome outcome =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"});
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("is stopped") && Catch::Contains("SIGCONT"));
  target.process().signal(SIGCONT);
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: a process in a control group that is frozen is refused", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Freezer freezer;
  if (!freezer.made()) return skip("no control group that freezes can be made here");
  Target target = gpu_target();
  freezer.add(target.pid());
  freezer.freeze();
  const Outcome outcome =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"});
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("control group") && Catch::Contains("is frozen"));
  freezer.thaw();
  CHECK(target.ask("check?") == "ok");
  CHECK(icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"}).status == 0);
}

TEST_CASE("gpu: a process with children is refused, and they go on", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target({"child"});
  expect_refused(target, {}, {"child process"});
  CHECK(target.ask("child?") == "runs");
}

TEST_CASE("gpu: processes that use the same GPU are no business of each other", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  Target sibling = gpu_target();
  const Outcome outcome = icecore(
      {"snapshot", std::to_string(target.pid()), "-o", folder / "image", "--no-fsync", "--kill"});
  CHECK(outcome.status == 0);
  target.process().await_end();
  CHECK(sibling.ask("check?") == "ok");
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
  CHECK(sibling.ask("check?") == "ok");
}

TEST_CASE("gpu: a limit of memory that device memory would exceed is refused", "[gpu]") {
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
  FakeGpu gpu;
  TemporaryFolder folder;
  const ControlGroup group{60 * kMiB};
  if (!group.made()) return skip("no control group with a limit of memory can be made here");
  Target target = gpu_target({"quiet", "HOLD", "400"});
  group.add(target.pid());
  const Outcome outcome =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image", "--no-fsync"});
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("/memory.") && Catch::Contains("leaves") &&
                              Catch::Contains("device memory would come into"));
  CHECK(target.ask("check?") == "ok");
  {
    // Whose memory it is cannot be told.
    Target other = gpu_target({"quiet"});
    group.limit(2048 * kMiB);
    CHECK(icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image", "--no-fsync"})
              .status == 0);
  }
  CHECK(target.ask("check?") == "ok");
  target.process().signal(SIGKILL);
  target.process().await_end();

  gpu.restart();
  group.limit(200 * kMiB);
  const Arguments within = {"bash",
                            "-c",
                            "echo $$ >\"$0\"; exec \"$@\"",
                            group / "cgroup.procs",
                            ICECORE_TOOL,
                            "check",
                            folder / "image"};
  const Outcome refused = run(within);
  CHECK(refused.status == 1);
  CHECK_THAT(refused.out, Catch::Contains("come through memory"));
  group.limit(2048 * kMiB);
  CHECK(run(within).status == 0);
}

TEST_CASE("gpu: a process without CUDA costs no helper", "[gpu]") {
  FakeGpu gpu;
  gpu.set("ICECORE_GPU", "/nowhere/icecore-gpu");
  TemporaryFolder folder;
  Target target{"tiny"};
  CHECK(icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"}).status == 0);
  CHECK(target.running());
}

// ---- images
// --------------------------------------------------------------------------------------

/// An image of a process on GPU 1 of 1024 MiB and compute capability 9.0, and that GPU.
struct Taken {
  FakeGpu gpu;
  TemporaryFolder folder;
  std::filesystem::path image = folder / "image";
  std::string secret;

  explicit Taken(const Arguments& arguments = {}) {
    Target target = gpu_target(arguments);
    secret = target.ask("secret?");
    icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
    target.process().await_end();
    gpu.restart();
  }

  void expect_refused(const std::vector<std::string>& words, const Arguments& options = {}) const {
    Arguments command = {"check", image};
    command.insert(command.end(), options.begin(), options.end());
    const Outcome checked = icecore(command);
    command[0] = "restore";
    const Outcome outcome = icecore(command);
    INFO(checked.out << outcome.err);
    CHECK(checked.status == 1);
    CHECK(outcome.status == 125);
    for (const std::string& word : words) {
      CHECK_THAT(checked.out, Catch::Contains(word));
      CHECK_THAT(outcome.err, Catch::Contains(word));
    }
  }

  void expect_restored(const icecore::RestoreOptions& options = {}) const {
    Restored restored{image, options};
    CHECK(restored.ask("secret?") == secret);
    CHECK(restored.ask("check?") == "ok");
  }
};

constexpr const char* kFirst = "GPU-10111213-1415-1617-1819-1a1b1c1d1e01";
constexpr const char* kSecond = "GPU-10111213-1415-1617-1819-1a1b1c1d1e02";

TEST_CASE("gpu: inspect and check tell of GPUs", "[gpu]") {
  Taken taken;
  const Outcome inspected = icecore({"inspect", taken.image});
  CHECK_THAT(inspected.out, Catch::Contains(kFirst) && Catch::Contains("Fake GPU 90") &&
                                Catch::Contains("compute capability 9.0") &&
                                Catch::Contains("CUDA 13.0"));
  const Outcome checked = icecore({"check", taken.image});
  CHECK(checked.status == 0);
  CHECK_THAT(checked.out, Catch::Contains("ok  gpu (Fake GPU 90"));
  taken.expect_restored();
}

TEST_CASE("gpu: another GPU takes the place only when it is told to", "[gpu]") {
  Taken taken;
  const std::string map = std::string{kFirst} + "=" + kSecond;
  taken.gpu.restart({"2:90:1024"});
  taken.expect_refused({std::string{kSecond}, "--gpu-map"});
  taken.expect_refused({"is none of the snapshot's"},
                       {"--gpu-map", "GPU-7=" + std::string{kSecond}});
  taken.gpu.set("FAKE_VERSION", "12080");
  taken.expect_refused({"CUDA 12.8"}, {"--gpu-map", map});
  FakeGpu::unset("FAKE_VERSION");
  taken.expect_restored({.gpu_map = {{kFirst, kSecond}}});
  taken.gpu.restart({"2:90:1024", "1:90:1024"});  // the old one again, as the second
  taken.expect_restored();
}

TEST_CASE("gpu: several GPUs change their places together", "[gpu]") {
  const Arguments devices = {"1:90:1024", "2:90:1024"};
  FakeGpu gpu{devices};
  TemporaryFolder folder;
  Target target = gpu_target();
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart(devices);
  const Outcome twice =
      icecore({"restore", folder / "image", "--gpu-map", std::string{kFirst} + "=" + kSecond});
  CHECK(twice.status == 125);
  CHECK_THAT(twice.err, Catch::Contains("takes the place of two GPUs"));
  gpu.restart({"2:90:1024"});
  const Outcome alone = icecore({"restore", folder / "image"});
  CHECK(alone.status == 125);
  CHECK_THAT(alone.err, Catch::Contains("1 here, the snapshot was taken with 2"));
  gpu.restart(devices);
  Restored restored{folder / "image", {.gpu_map = {{kFirst, kSecond}, {kSecond, kFirst}}}};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: another kind of GPU is refused", "[gpu]") {
  Taken taken;
  taken.gpu.restart({"1:100:1024"});
  taken.expect_refused({"is a Fake GPU 100", "Fake GPU 90"});
  taken.gpu.restart({"1:89:1024:90"});
  taken.expect_refused({"has compute capability 8.9, not 9.0"});
  taken.gpu.restart({"1:90:512"});
  taken.expect_refused({"has 512 MiB of memory, not 1024"});
  taken.gpu.set("FAKE_DRIVER", "no_device");
  taken.expect_refused({"finds no GPU"});
}

TEST_CASE("gpu: an older driver than the snapshot's is refused", "[gpu]") {
  Taken taken;
  taken.gpu.set("FAKE_VERSION", "12080");
  taken.expect_refused({"CUDA 12.8", "CUDA 13.0"});
}

TEST_CASE("gpu: a GPU whose driver is not kept loaded is no obstacle", "[gpu]") {
  Taken taken;
  taken.gpu.set("FAKE_NO_PERSISTENCE", "1");
  taken.expect_restored();
  // Whoever does not prepare it as icecore-gpu does:
  Target target = gpu_target({"quiet"});
  REQUIRE(FakeGpu::call("lock", target.pid()) == "0, state 1");
  REQUIRE(FakeGpu::call("checkpoint", target.pid()) == "0, state 2");
  CHECK(FakeGpu::call("restore", target.pid(), "--call-without-init") == "800, state 2");
  CHECK(FakeGpu::call("restore", target.pid()) == "0, state 1");
}

TEST_CASE("gpu: what does not fit into the free memory is not tried", "[gpu]") {
  Taken taken;
  {
    taken.gpu.inject("restore fail 999");  // it must not even be called
    Target other = gpu_target({"quiet", "MIB", "780"});
    taken.expect_refused({"MiB are free", "are needed", "end what else uses the GPU"});
    CHECK(other.running());
  }
  taken.gpu.inject("");
  taken.gpu.restart();  // with nothing of the other left
  taken.expect_restored();
}

}  // namespace test::gpu_refusals_test
