// SPDX-License-Identifier: Apache-2.0
#pragma once

// libcuda.so.1, loaded when it is there.  Only in the helper: it makes threads, a fork after cuInit
// is forbidden, and a call may hang.

#include <string>
#include <string_view>

#include "gpu/cuda.hpp"
#include "sys/shared_library.hpp"

namespace icecore::gpu {

class Driver {
 public:
  /// Throws Errc::io when there is none, or it lacks what every driver has.
  explicit Driver(const std::string& library);

  /// The six calls are there.
  bool can_checkpoint() const noexcept;

  Init init;
  DriverGetVersion driver_version;
  GetErrorName error_name;
  DeviceGetCount device_count;
  DeviceGet device;
  DeviceGetName device_name;
  DeviceGetUuid device_uuid;
  DeviceGetAttribute device_attribute;
  DeviceTotalMem total_memory;
  DevicePrimaryCtxRetain retain_context;
  DevicePrimaryCtxRelease release_context;
  CtxSetCurrent set_context;
  MemGetInfo memory_info;
  CheckpointProcessGetRestoreThreadId restore_thread;
  CheckpointProcessGetState state;
  CheckpointProcessLock lock;
  CheckpointProcessCheckpoint checkpoint;
  CheckpointProcessRestore restore;
  CheckpointProcessUnlock unlock;

 private:
  template <class Function>
  void resolve(Function& function, std::string_view name) const;

  sys::SharedLibrary library_;
  GetProcAddressV2 find_v2_;
  GetProcAddress find_;
};

}  // namespace icecore::gpu
