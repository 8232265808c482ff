// SPDX-License-Identifier: Apache-2.0
#include "gpu/process_view.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "sys/procfs.hpp"

namespace icecore::gpu {
namespace {

/// Where a test's devices are.  Besides, never instead of, the real ones.
std::string_view other_devices() {
  const char* const path = ::secure_getenv("ICECORE_GPU_DEVICES");
  return path != nullptr ? path : "";
}

bool is_managed(const std::string& path) {
  return path == "/dev/nvidia-uvm" ||
         (!other_devices().empty() && path == fmt::format("{}nvidia-uvm", other_devices()));
}

/// What shows that a process uses something: a variable of its environment, or a library.
struct Sign {
  std::string_view text;
  const char* meaning;
};
constexpr Sign kVariables[] = {
    {"CUDA_MPS_PIPE_DIRECTORY=", "MPS"},
    {"CUDA_INJECTION64_PATH=", "a profiler or another tool (CUPTI)"},
    {"CUDA_CHECKPOINT_JOB_FILE=", "a job of cuda-checkpoint --launch-job"},
};
constexpr Sign kLibraries[] = {
    {"/libcupti.so", "a profiler or another tool (CUPTI)"},
    {"/libnvidia-glcore.so", "graphics (Vulkan, OpenGL)"},
};

/// The line, or what else ends with a null or a newline, that `sign` begins in.
std::string with_rest(const std::string& text, std::size_t at) {
  return text.substr(at, text.find_first_of(std::string_view{"\0\n", 2}, at) - at);
}

std::vector<std::string> find_unsupported(pid_t pid, const std::string& maps,
                                          const std::vector<std::string>& devices) {
  std::vector<std::string> found;
  for (const std::string& device : devices)
    // Each part of a divided GPU has such a device; processes that use a whole one open none.
    if (device.find("nvidia-caps/nvidia-cap") != std::string::npos)
      found.push_back(fmt::format("a part of a GPU (MIG; {})", device));
  const std::string environment = sys::readable_text(fmt::format("/proc/{}/environ", pid));
  for (const Sign& sign : kVariables)
    if (const std::size_t at = ('\0' + environment).find('\0' + std::string{sign.text});
        at != std::string::npos)
      found.push_back(fmt::format("{} ({})", sign.meaning, with_rest(environment, at)));
  for (const Sign& sign : kLibraries)
    if (const std::size_t at = maps.find(sign.text); at != std::string::npos)
      found.push_back(fmt::format("{} ({})", sign.meaning, with_rest(maps, at + 1)));
  return found;
}

std::vector<std::string> open_devices(pid_t pid) {
  std::vector<std::string> found;
  for (const int number : sys::list_descriptors(pid))
    if (const auto path = sys::try_read_link(fmt::format("/proc/{}/fd/{}", pid, number));
        path && is_device_path(*path))
      found.push_back(fmt::format("fd {}: {}", number, *path));
  return found;
}

}  // namespace

bool is_device_path(const std::string& path) {
  if (path.starts_with("/dev/nvidia") || path.starts_with("/dev/gdrdrv")) return true;
  return !other_devices().empty() && path.starts_with(other_devices());
}

ProcessView look_at(pid_t pid) {
  ProcessView view;
  view.devices = open_devices(pid);
  // The text alone, which most processes need no more of.
  const std::string maps = sys::readable_text(fmt::format("/proc/{}/maps", pid));
  view.has_driver = maps.find("/libcuda.so") != std::string::npos;
  if (!view.uses_gpu()) return view;
  for (const sys::Vma& vma : sys::parse_maps(maps)) {
    if (is_managed(vma.name)) ++view.managed_mappings;
    if (is_device_path(vma.name))
      view.devices.push_back(fmt::format("mapping {:#x}-{:#x}: {}", vma.start, vma.end, vma.name));
  }
  view.unsupported = find_unsupported(pid, maps, view.devices);
  return view;
}

bool others_use_gpus(pid_t pid, pid_t helper) {
  for (const pid_t other : sys::list_processes()) {
    if (other == pid || other == helper) continue;
    for (const int number : sys::list_descriptors(other))
      if (const auto path = sys::try_read_link(fmt::format("/proc/{}/fd/{}", other, number));
          path && is_managed(*path))
        return true;
  }
  return false;
}

bool has_open_devices(pid_t pid) { return !open_devices(pid).empty(); }

}  // namespace icecore::gpu
