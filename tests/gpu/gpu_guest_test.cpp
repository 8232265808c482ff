// SPDX-License-Identifier: Apache-2.0
//
// Buffers in GPUs that libicecore_guest takes care of.  The daemon that holds device memory is
// killed between snapshot and restore, as in gpu_roundtrip_test.cpp.
#include <catch2/catch.hpp>
#include <fcntl.h>
#include <icecore/error.hpp>
#include <icecore/image.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/stat.h>

#include "gpu/fake_gpu.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"

namespace test::gpu_guest_test {

namespace fs = std::filesystem;

constexpr std::size_t kMiB = std::size_t{1} << 20;

/// Contents of a model.
struct Weights {
  TemporaryFolder folder;
  fs::path path = folder / "weights";

  Weights() {
    std::string bytes(5 * kMiB, 0);
    unsigned long state = 1;
    for (char& byte : bytes)
      byte = static_cast<char>((state = state * 6364136223846793005 + 1) >> 56);
    std::ofstream{path} << bytes;
  }

  /// One byte; nobody sees it by the file's time.
  void change_silently() const {
    struct ::stat before {};
    must(::stat(path.c_str(), &before), "stat");
    std::fstream file{path, std::ios::in | std::ios::out};
    file.seekg(3 * kMiB);
    const int byte = file.get();
    file.seekp(3 * kMiB);
    file.put(static_cast<char>(byte ^ 1));
    file.close();
    const ::timespec times[] = {before.st_atim, before.st_mtim};
    must(::utimensat(AT_FDCWD, path.c_str(), times, 0), "utimensat");
  }
};

Target start(const Weights& weights, Arguments more = {}) {
  Arguments arguments = {FakeGpu::library(), weights.path};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Target{"guest_gpu", arguments};
}

TEST_CASE("gpu: buffers of a cooperating program come back", "[gpu]") {
  const auto loading = GENERATE(icecore::Loading::eager, icecore::Loading::lazy);
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights);
  CHECK(target.ask("check?") == "ok");
  const auto taken = icecore::snapshot(target.pid(), folder / "image",
                                       {.encoding = encoding, .kill = true, .fsync = false});
  CHECK(taken.gpu_bytes == 0);  // all that there was: nothing was left for the driver
  target.process().await_end();

  const auto info = icecore::Image::open(folder / "image").info();
  REQUIRE(info.gpu->buffers.size() == 4);
  CHECK(info.gpu->buffers[0].contents == "keep");
  CHECK(info.gpu->buffers[1].contents == "drop");
  CHECK(info.gpu->buffers[2].contents == "file");
  CHECK(info.gpu->buffers[2].file == weights.path);
  CHECK(info.gpu->buffers[2].file_offset == 4096);
  CHECK(info.gpu->buffers[3].contents == "keep");
  CHECK(info.gpu->buffers[1].size_bytes == 96 * kMiB);
  CHECK(info.image_bytes < 80 * kMiB);

  gpu.restart();
  Restored restored{folder / "image", {.loading = loading}};
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("losses?") == "1");
  CHECK(restored.ask("check?") == "ok");
  icecore::snapshot(restored.pid(), folder / "again", {.fsync = false});
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("losses?") == "2");
}

TEST_CASE("gpu: buffers that were not copied do not come back", "[gpu]") {
  FakeGpu gpu;
  gpu.set("FAKE_NO_COPIES_OUT", "1");
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart();
  Restored restored{folder / "image"};
  CHECK_THAT(restored.ask("check?"), Catch::StartsWith("wrong: number"));
}

TEST_CASE("gpu: a program with buffers goes on after a snapshot", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights);
  const std::string free = target.ask("free?");
  for (int i = 1; i <= 3; ++i) {
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
    CHECK(target.ask("check?") == "ok");
    CHECK(target.ask("losses?") == std::to_string(i));
  }
  CHECK(target.ask("free?") == free);
  const std::string rounds = target.ask("rounds");
  const Deadline deadline{kPatience};
  while (target.ask("rounds") == rounds) REQUIRE_FALSE(deadline.passed());
}

TEST_CASE("gpu: a buffer of a file in which the program has written is kept", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights);
  CHECK(target.ask("write") == "ok");
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  CHECK(icecore::Image::open(folder / "image").info().gpu->buffers[2].contents == "keep");
  gpu.restart();
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
  icecore::snapshot(restored.pid(), folder / "again", {.fsync = false});
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: the file of a buffer must be what it was", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart();

  SECTION("a change that its time tells is refused before anything is done") {
    std::ofstream{weights.path, std::ios::app} << "more";
    const Outcome outcome = icecore({"restore", folder / "image"});
    CHECK(outcome.status == 125);
    CHECK_THAT(outcome.err, Catch::Contains(weights.path.string()));
  }
  SECTION("one that only its digest tells leaves a buffer that is lost, and says so") {
    weights.change_silently();
    Restored restored{folder / "image"};
    CHECK(restored.ask("kept?") == "0");
    CHECK_THAT(restored.ask("check?"), Catch::Contains("icecore_guest_gpu_status gives 999"));
    CHECK(restored.ask("status?") == "999");
  }
}

TEST_CASE("gpu: addresses that the driver forgets are reserved again", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights);
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart();
  gpu.inject("restore skip");
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: buffers need as much free memory as they had", "[gpu]") {
  const Arguments device = {"1:90:512"};
  FakeGpu gpu{device};
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});  // with 114 MiB
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart(device);
  {
    // Leaves 307 MiB: enough for all but the buffers.
    Target other = gpu_target({"quiet", "MIB", "200"});
    const Outcome outcome = icecore({"restore", folder / "image"});
    CHECK(outcome.status == 125);
    CHECK_THAT(outcome.err, Catch::Contains("MiB are free"));
    CHECK(other.running());
  }
  gpu.restart(device);
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: somebody who uses buffers keeps a snapshot away", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});
  CHECK(target.ask("enter") == "ok");
  const Outcome outcome =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"});
  CHECK(outcome.status == 1);
  CHECK_THAT(outcome.err, Catch::Contains("refuses it"));
  CHECK(target.ask("check?") == "ok");
  CHECK(target.ask("losses?") == "0");
  CHECK(target.ask("leave") == "ok");
  CHECK(icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"}).status == 0);
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: buffers come back when the snapshot fails", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights);
  gpu.inject("checkpoint fail 2");
  const Outcome outcome =
      icecore({"snapshot", std::to_string(target.pid()), "-o", folder / "image"});
  CHECK(outcome.status == 1);
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("gpu: a kept buffer whose bytes are damaged in memory is lost, not wrong", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart();
  // The process stands still, complete, with what was in the GPU in its memory.
  Conversation conversation = make_conversation();
  icecore::RestoreOptions options;
  const Streams streams = conversation.streams();
  options.standard_streams = {streams.in, streams.out, streams.error};
  options.loading = icecore::Loading::eager;
  auto prepared = icecore::prepare(icecore::Image::open(folder / "image"), options);
  conversation.begin();
  const auto info = icecore::Image::open(folder / "image").info();
  std::fstream memory{"/proc/" + std::to_string(prepared.pid()) + "/mem",
                      std::ios::in | std::ios::out | std::ios::binary};
  const auto carrier = std::find_if(info.mappings.begin(), info.mappings.end(), [](const auto& m) {
    return m.end - m.start >= 9 * kMiB && m.name.empty() && m.stored_bytes >= 9 * kMiB;
  });
  REQUIRE(carrier != info.mappings.end());
  memory.seekp(static_cast<std::streamoff>(carrier->start + 5 * kMiB)).put('x').put('y').flush();
  REQUIRE(memory.good());
  auto process = std::move(prepared).start();
  CHECK_THAT(conversation.ask("check?"), Catch::Contains("icecore_guest_gpu_status gives 999"));
  CHECK(conversation.ask("kept?") == "999");
  CHECK(conversation.ask("status?") == "0");
  process.signal(SIGKILL);
  process.wait();
}

TEST_CASE("gpu: buffers can be forgotten", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  CHECK(target.ask("check?") == "ok");
  CHECK(target.ask("forget") == "ok");
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  CHECK(icecore::Image::open(folder / "image").info().gpu->buffers.empty());
}

TEST_CASE("gpu: inspect tells of buffers", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  const Weights weights;
  Target target = start(weights, {"alone"});
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  const Outcome text = icecore({"inspect", folder / "image"});
  CHECK_THAT(text.out, Catch::Contains("file of " + weights.path.string() + " at 0x1000") &&
                           Catch::Contains("keep") && Catch::Contains("drop"));
  const Outcome json = icecore({"inspect", "--json", folder / "image"});
  CHECK_THAT(json.out, Catch::Contains("\"gpu_buffers\":[{\"address\":"));
}

}  // namespace test::gpu_guest_test
