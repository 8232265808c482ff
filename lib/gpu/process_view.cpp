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
