// SPDX-License-Identifier: Apache-2.0
#pragma once

// What of a process leads to NVIDIA's devices, seen from outside.

#include <sys/types.h>

#include <string>
#include <vector>

#include "sys/proc_maps.hpp"

namespace icecore::gpu {

/// True for what the driver opens and maps: /dev/nvidia0, /dev/nvidiactl, /dev/nvidia-uvm …
bool is_device_path(const std::string& path);

struct ProcessView {
  bool has_driver = false;           ///< libcuda.so is mapped
  std::vector<std::string> devices;  ///< "fd 5: /dev/nvidiactl", "mapping 0x…-0x…: /dev/nvidia0"
  std::size_t managed_mappings = 0;  ///< of /dev/nvidia-uvm: each managed allocation adds one
  /// What it seems to use of that which no driver can save (not all of it shows from outside):
  /// "a part of a GPU (MIG; fd 7: /dev/nvidia-caps/nvidia-cap3)".
  std::vector<std::string> unsupported;

  bool uses_gpu() const noexcept { return has_driver || !devices.empty(); }
};
ProcessView look_at(pid_t pid);

/// Somebody besides these two has CUDA: a process with nvidia-uvm open, which daemons that only
/// look after GPUs have not.
bool others_use_gpus(pid_t pid, pid_t helper);

/// Of descriptors alone.
bool has_open_devices(pid_t pid);

}  // namespace icecore::gpu
