// SPDX-License-Identifier: Apache-2.0
//
// Buffers in GPUs of a Python program: by the module icecore, and by the functions that torch's
// pluggable allocator calls.  The daemon that holds device memory is killed in between, as in
// gpu_guest_test.cpp.
#include <catch2/catch.hpp>
#include <fmt/format.h>
#include <icecore/image.hpp>
#include <icecore/snapshot.hpp>
#include <unistd.h>

#include <algorithm>

#include "gpu/fake_gpu.hpp"
#include "support/restored.hpp"
#include "support/skip.hpp"

namespace test::gpu_python_test {

constexpr const char* kPython = "/usr/bin/python3";

class PythonProgram {
 public:
  TemporaryFolder folder;

  Target start() const {
    std::string bytes(5 << 20, 0);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * i >> 7);
    std::ofstream{folder / "weights"} << bytes;
    const std::string modules = fmt::format("PYTHONPATH={}/python", ICECORE_SOURCE_DIR);
    const std::string library = fmt::format("ICECORE_GUEST_LIBRARY={}", ICECORE_GUEST);
    return Target::of_command({"/usr/bin/env", modules, library, kPython,
                               ICECORE_SOURCE_DIR "/tests/programs/gpu_guest.py",
                               FakeGpu::library(), folder / "weights"});
  }
};

bool no_python() {
  if (::access(kPython, X_OK) == 0) return false;
  skip("needs /usr/bin/python3");
  return true;
}

TEST_CASE("gpu: buffers of Python and of torch's allocator come back", "[gpu]") {
  if (no_python()) return;
  const auto loading = GENERATE(icecore::Loading::eager, icecore::Loading::lazy);
  FakeGpu gpu;
  const PythonProgram program;
  Target target = program.start();
  CHECK(target.ask("check?") == "ok");
  CHECK(target.ask("misuse") == "ok");
  const auto image = program.folder / "image";
  icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
  target.process().await_end();
  const auto buffers = icecore::Image::open(image).info().gpu->buffers;
  const auto count = [&](const char* contents) {
    return std::count_if(buffers.begin(), buffers.end(),
                         [&](const auto& buffer) { return buffer.contents == contents; });
  };
  CHECK(count("keep") == 2);
  CHECK(count("drop") == 2);
  CHECK(count("file") == 1);

  gpu.restart();
  Restored restored{image, {.loading = loading}};
  CHECK(restored.ask("losses?") == "0 1 0 1");
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("forget") == "ok");
  icecore::snapshot(restored.pid(), program.folder / "again", {.fsync = false});
  CHECK(icecore::Image::open(program.folder / "again").info().gpu->buffers.size() == 2);
}

TEST_CASE("gpu: buffers of Python that were not copied do not come back", "[gpu]") {
  if (no_python()) return;
  FakeGpu gpu;
  gpu.set("FAKE_NO_COPIES_OUT", "1");
  const PythonProgram program;
  Target target = program.start();
  icecore::snapshot(target.pid(), program.folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  gpu.restart();
  Restored restored{program.folder / "image"};
  CHECK(restored.ask("check?") == "wrong: bytes are others");
}

TEST_CASE("gpu: a Python program with buffers goes on after a snapshot", "[gpu]") {
  if (no_python()) return;
  FakeGpu gpu;
  const PythonProgram program;
  Target target = program.start();
  for (int i = 1; i <= 2; ++i) {
    icecore::snapshot(target.pid(), program.folder / "image", {.fsync = false});
    CHECK(target.ask("losses?") == "0 " + std::to_string(i) + " 0 " + std::to_string(i));
    CHECK(target.ask("check?") == "ok");
  }
}

}  // namespace test::gpu_python_test
