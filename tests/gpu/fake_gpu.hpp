// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "support/patience.hpp"
#include "support/run.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test {

/// The test driver with its GPUs, for this process and those that it starts, as long as this lives.
class FakeGpu {
 public:
  /// `devices` as gpud has them: "NUMBER:CHIP:MIB".
  explicit FakeGpu(const Arguments& devices = {}) {
    for (const char* name : {"nvidia0", "nvidiactl", "nvidia-uvm"})
      std::ofstream{folder_ / name} << std::string(4096, '\0');
    std::filesystem::create_directory(folder_ / "nvidia-caps");
    std::ofstream{folder_ / "nvidia-caps/nvidia-cap3"};
    set("FAKE_CUDA_DIR", folder_.path());
    set("ICECORE_GPU_DEVICES", folder_ / "nvidia");
    set("ICECORE_LIBCUDA", library());
    restart(devices);
  }
  FakeGpu(const FakeGpu&) = delete;
  FakeGpu& operator=(const FakeGpu&) = delete;
  ~FakeGpu() {
    for (const std::string& name : set_) ::unsetenv(name.c_str());
  }

  static std::string library() { return ICECORE_FAKE_CUDA_DIR "/libcuda.so.1"; }
  /// "old": as before driver 570; "first": with the first cuGetProcAddress; "plain": with none.
  static std::string library(const std::string& kind) {
    return ICECORE_FAKE_CUDA_DIR "/" + kind + "/libcuda.so.1";
  }

  /// Ends the daemon, and with it all that was in device memory; another one takes its place.
  void restart(const Arguments& devices = {}) {
    daemon_.reset();
    Arguments command = {ICECORE_FAKE_CUDA_DIR "/gpud", folder_ / "gpud"};
    command.insert(command.end(), devices.begin(), devices.end());
    daemon_ = std::make_unique<Target>(Target::of_command(command));
  }
  void stop() { daemon_.reset(); }

  /// An environment variable for whatever is started from now on.
  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }
  static void unset(const std::string& name) { ::unsetenv(name.c_str()); }

  /// What the driver's thread in a process does from now on: see fake_cuda/process.hpp.
  void inject(const std::string& lines) { std::ofstream{folder_ / "inject"} << lines << '\n'; }

  /// Waits until it has begun with what inject() made slow.
  void await_beginning() const {
    const Deadline deadline{kPatience};
    while (!std::filesystem::exists(folder_ / "began"))
      if (deadline.passed()) throw std::runtime_error{"the driver has not begun"};
  }

  /// Somebody else's call of the driver: "0, state 1" is SUCCESS and locked.
  static std::string call(const std::string& name, pid_t pid, const char* how = "--call") {
    std::string said =
        run({ICECORE_FAKE_CUDA_DIR "/gpu_conformance", how, name, std::to_string(pid), library()})
            .out;
    if (!said.empty()) said.pop_back();
    return said;
  }

  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
  std::vector<std::string> set_;
  std::unique_ptr<Target> daemon_;
};

/// A program that uses it.
inline Target gpu_target(const Arguments& arguments = {}) {
  Arguments all = {FakeGpu::library()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return Target{"gpu_buffers", all};
}

}  // namespace test
