// SPDX-License-Identifier: Apache-2.0
#include "hidden_gpus.hpp"

#include <fmt/format.h>
#include <icecore/error.hpp>
#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

namespace icecore::tool {
namespace {

namespace fs = std::filesystem;

void must(int result, const std::string& what) {
  if (result == 0) return;
  const int error = errno;
  throw Error{error == EPERM ? Errc::permission : Errc::io,
              fmt::format("hide the GPUs: {}: {}", what, ::strerrordesc_np(error)), error};
}

/// Files whose paths begin so, also one folder down (/dev/nvidia-caps).
void find_files(const fs::path& beginning, std::vector<std::string>& found) {
  const std::string name = beginning.filename();
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator{beginning.parent_path(), ignored}) {
    if (!entry.path().filename().string().starts_with(name)) continue;
    if (!entry.is_directory(ignored)) {
      found.push_back(entry.path());
      continue;
    }
    for (const auto& inner : fs::directory_iterator{entry.path(), ignored})
      found.push_back(inner.path());
  }
}

std::vector<std::string> devices() {
  std::vector<std::string> found;
  find_files("/dev/nvidia", found);
  find_files("/dev/gdrdrv", found);
  if (const char* const others = ::secure_getenv("ICECORE_GPU_DEVICES")) find_files(others, found);
  return found;
}

}  // namespace

HiddenGpus::HiddenGpus() {
  constexpr const char* kDriver = "/proc/driver/nvidia";
  must(::unshare(CLONE_NEWNS), "a mount namespace");
  must(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "private mounts");
  for (const std::string& device : devices()) {
    must(::mount("/dev/null", device.c_str(), nullptr, MS_BIND, nullptr), device);
    covered_.push_back(device);
  }
  if (fs::exists(kDriver)) {
    must(::mount("none", kDriver, "tmpfs", MS_RDONLY, nullptr), kDriver);
    covered_.emplace_back(kDriver);
  }
}

void HiddenGpus::show() {
  for (const std::string& path : std::exchange(covered_, {}))
    must(::umount2(path.c_str(), MNT_DETACH), path);
}

}  // namespace icecore::tool
