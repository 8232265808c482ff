// SPDX-License-Identifier: Apache-2.0
//
// A process with device memory through snapshot and restore.  The daemon that holds the memory is
// killed in between, so nothing comes back that was not saved; and the twin of each test, which
// leaves the driver out, must fail to verify.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>

#include "gpu/fake_gpu.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"

namespace test::gpu_roundtrip_test {

TEST_CASE("gpu: a process with device memory comes back", "[gpu]") {
  const auto loading = GENERATE(icecore::Loading::eager, icecore::Loading::lazy);
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  const std::string secret = target.ask("secret?");
  CHECK(target.ask("check?") == "ok");
  const auto taken = icecore::snapshot(target.pid(), folder / "image",
                                       {.encoding = encoding, .kill = true, .fsync = false});
  CHECK(taken.gpu_bytes > 9 << 20);
  target.process().await_end();

  gpu.restart();
  Restored restored{folder / "image", {.loading = loading}};
  CHECK(restored.ask("secret?") == secret);
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: the driver's functions are found in each way that it offers", "[gpu]") {
  const std::string kind = GENERATE("first", "plain");
  FakeGpu gpu;
  gpu.set("ICECORE_LIBCUDA", FakeGpu::library(kind));
  TemporaryFolder folder;
  Target target{"gpu_buffers", {FakeGpu::library(kind)}};
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart();
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("gpu: what the driver did not save does not come back", "[gpu]") {
  const auto loading = GENERATE(icecore::Loading::eager, icecore::Loading::lazy);
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target({"quiet"});
  gpu.inject("checkpoint skip");
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();

  gpu.restart();
  Restored restored{folder / "image", {.loading = loading}};
  CHECK_THAT(restored.ask("check?"), Catch::StartsWith("wrong: number"));
}

TEST_CASE("gpu: device memory is nowhere but in the daemon", "[gpu]") {
  FakeGpu gpu;
  Target target = gpu_target({"quiet"});
  CHECK(target.ask("check?") == "ok");
  gpu.restart();
  CHECK_THAT(target.ask("check?"), Catch::StartsWith("wrong: "));
}

TEST_CASE("gpu: a process with device memory runs on after a snapshot", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  Target target = gpu_target();
  for (int i = 0; i < 3; ++i) {
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
    CHECK(target.ask("check?") == "ok");
  }
  // Both go on, each with memory of its own.
  Restored restored{folder / "image", {.pids = icecore::Pids::in_namespace}};
  CHECK(target.ask("check?") == "ok");
  CHECK(restored.ask("check?") == "ok");
  CHECK(target.ask("check?") == "ok");
}

}  // namespace test::gpu_roundtrip_test
