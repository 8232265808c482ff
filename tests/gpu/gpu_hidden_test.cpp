// SPDX-License-Identifier: Apache-2.0
//
// A program that sees no GPU until its snapshot is taken, and has them from then on.
#include <catch2/catch.hpp>

#include <fstream>

#include "gpu/fake_gpu.hpp"

namespace test::gpu_hidden_test {

/// `icecore run --gpu hidden` of a program that calls cuInit when it is asked to.
struct HiddenRun {
  Conversation conversation = make_conversation();
  Process tool;

  HiddenRun(const std::filesystem::path& image, const std::filesystem::path& sign)
      : tool(Process::start({ICECORE_TOOL, "run", "--gpu", "hidden", "-o", image, "--ready",
                             "file:" + sign.string(), "--", target_path("gpu_buffers"),
                             FakeGpu::library(), "late", "quiet"},
                            conversation.streams())) {
    conversation.begin();
  }
};

TEST_CASE("gpu: a program may be snapshotted without GPUs and have them afterwards", "[gpu]") {
  FakeGpu gpu;
  TemporaryFolder folder;
  {
    HiddenRun first{folder / "image", folder / "sign"};
    REQUIRE(first.conversation.hear() == "ready");
    CHECK(first.conversation.ask("init") == "wrong: cuInit gives 100");
    std::ofstream{folder / "sign"};
    // It has them as soon as its snapshot is taken.  Not asked before: what it is about to answer
    // would be in the image.
    const Deadline deadline{kPatience};
    while (!std::filesystem::exists(folder / "image")) REQUIRE_FALSE(deadline.passed());
    while (first.conversation.ask("init") != "ok") REQUIRE_FALSE(deadline.passed());
    CHECK(first.conversation.ask("check?") == "ok");
  }
  HiddenRun second{folder / "image", folder / "sign"};
  CHECK(second.conversation.ask("init") == "ok");
  CHECK(second.conversation.ask("check?") == "ok");
  // Nobody else's are hidden meanwhile.
  Target other = gpu_target({"quiet"});
  CHECK(other.ask("check?") == "ok");
}

}  // namespace test::gpu_hidden_test
