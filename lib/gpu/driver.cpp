// SPDX-License-Identifier: Apache-2.0
#include "gpu/driver.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "icecore/error.hpp"
#include "sys/check.hpp"

namespace icecore::gpu {

/// By the driver's own function, which knows all versions of a name; by the exported name in a
/// driver without it.
template <class Function>
void Driver::resolve(Function& function, std::string_view name) const {
  const auto* const symbol = std::ranges::find(kSymbols, name, &Symbol::name);
  ICECORE_CHECK(symbol != std::end(kSymbols));
  void* found = nullptr;
  Result result = Result::not_found;
  int status = 0;
  if (find_v2_ != nullptr)
    result = find_v2_(symbol->name, &found, symbol->since, 0, &status);
  else if (find_ != nullptr)
    result = find_(symbol->name, &found, symbol->since, 0);
  if (result != Result::success || found == nullptr) found = library_.find(symbol->exported);
  function = reinterpret_cast<Function>(found);
}

Driver::Driver(const std::string& library)
    : library_(library),
      find_v2_(library_.find_function<GetProcAddressV2>("cuGetProcAddress_v2")),
      find_(library_.find_function<GetProcAddress>("cuGetProcAddress")) {
  resolve(init, "cuInit");
  resolve(driver_version, "cuDriverGetVersion");
  resolve(error_name, "cuGetErrorName");
  resolve(device_count, "cuDeviceGetCount");
  resolve(device, "cuDeviceGet");
  resolve(device_name, "cuDeviceGetName");
  resolve(device_uuid, "cuDeviceGetUuid");
  resolve(device_attribute, "cuDeviceGetAttribute");
  resolve(total_memory, "cuDeviceTotalMem");
  resolve(retain_context, "cuDevicePrimaryCtxRetain");
  resolve(release_context, "cuDevicePrimaryCtxRelease");
  resolve(set_context, "cuCtxSetCurrent");
  resolve(memory_info, "cuMemGetInfo");
  if (init == nullptr || driver_version == nullptr || device_count == nullptr ||
      device == nullptr || device_name == nullptr || device_attribute == nullptr ||
      total_memory == nullptr)
    throw Error{Errc::io, fmt::format("{}: is no CUDA driver", library)};

  resolve(restore_thread, "cuCheckpointProcessGetRestoreThreadId");
  resolve(state, "cuCheckpointProcessGetState");
  resolve(lock, "cuCheckpointProcessLock");
  resolve(checkpoint, "cuCheckpointProcessCheckpoint");
  resolve(restore, "cuCheckpointProcessRestore");
  resolve(unlock, "cuCheckpointProcessUnlock");
}

bool Driver::can_checkpoint() const noexcept {
  return restore_thread != nullptr && state != nullptr && lock != nullptr &&
         checkpoint != nullptr && restore != nullptr && unlock != nullptr;
}

}  // namespace icecore::gpu
