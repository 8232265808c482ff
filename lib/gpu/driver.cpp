// SPDX-License-Identifier: Apache-2.0
#include "gpu/driver.hpp"

#include <fmt/format.h>

#include "icecore/error.hpp"

namespace icecore::gpu {

/// By the driver's own function, which knows all versions of a name; by the exported name in a
/// driver without it.
template <class Function>
void Driver::resolve(Function& function, const char* name, int version,
                     const char* exported) const {
  void* found = nullptr;
  Result result = Result::not_found;
  int status = 0;
  if (find_v2_ != nullptr)
    result = find_v2_(name, &found, version, 0, &status);
  else if (find_ != nullptr)
    result = find_(name, &found, version, 0);
  if (result != Result::success || found == nullptr) found = library_.find(exported);
  function = reinterpret_cast<Function>(found);
}

Driver::Driver(const std::string& library)
    : library_(library),
      find_v2_(library_.find_function<GetProcAddressV2>("cuGetProcAddress_v2")),
      find_(library_.find_function<GetProcAddress>("cuGetProcAddress")) {
  resolve(init, "cuInit", 2000, "cuInit");
  resolve(driver_version, "cuDriverGetVersion", 2020, "cuDriverGetVersion");
  resolve(error_name, "cuGetErrorName", 6000, "cuGetErrorName");
  resolve(device_count, "cuDeviceGetCount", 2000, "cuDeviceGetCount");
  resolve(device, "cuDeviceGet", 2000, "cuDeviceGet");
  resolve(device_name, "cuDeviceGetName", 2000, "cuDeviceGetName");
  resolve(device_uuid, "cuDeviceGetUuid", 11040, "cuDeviceGetUuid_v2");
  resolve(device_attribute, "cuDeviceGetAttribute", 2000, "cuDeviceGetAttribute");
  resolve(total_memory, "cuDeviceTotalMem", 3020, "cuDeviceTotalMem_v2");
  resolve(retain_context, "cuDevicePrimaryCtxRetain", 7000, "cuDevicePrimaryCtxRetain");
  resolve(release_context, "cuDevicePrimaryCtxRelease", 11000, "cuDevicePrimaryCtxRelease_v2");
  resolve(set_context, "cuCtxSetCurrent", 4000, "cuCtxSetCurrent");
  resolve(memory_info, "cuMemGetInfo", 3020, "cuMemGetInfo_v2");
  if (init == nullptr || driver_version == nullptr || device_count == nullptr ||
      device == nullptr || device_name == nullptr || device_attribute == nullptr ||
      total_memory == nullptr)
    throw Error{Errc::io, fmt::format("{}: is no CUDA driver", library)};

  const auto checkpoint_call = [&](auto& function, const char* name) {
    resolve(function, name, kCheckpointVersion, name);
  };
  checkpoint_call(restore_thread, "cuCheckpointProcessGetRestoreThreadId");
  checkpoint_call(state, "cuCheckpointProcessGetState");
  checkpoint_call(lock, "cuCheckpointProcessLock");
  checkpoint_call(checkpoint, "cuCheckpointProcessCheckpoint");
  checkpoint_call(restore, "cuCheckpointProcessRestore");
  checkpoint_call(unlock, "cuCheckpointProcessUnlock");
}

bool Driver::can_checkpoint() const noexcept {
  return restore_thread != nullptr && state != nullptr && lock != nullptr &&
         checkpoint != nullptr && restore != nullptr && unlock != nullptr;
}

}  // namespace icecore::gpu
