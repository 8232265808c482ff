// SPDX-License-Identifier: Apache-2.0
//
// cuInit, what there is, and names.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "process.hpp"
#include "raw.hpp"

namespace fake {

Process self;
std::mutex tables;
bool initialised = false;
thread_local int current_device = -1;

namespace {

void name_file(int index, const char* name) {
  DeviceFile& file = self.files[index];
  std::snprintf(file.path, sizeof file.path, "%s/%s", self.folder, name);
}

/// What the process uses, and the driver cannot save.
Result unsupported_use() {
  if (std::getenv("FAKE_MIG") != nullptr) return Result::out_of_memory;  // as seen on a real one
  for (const char* const name : {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_INJECTION64_PATH"})
    if (std::getenv(name) != nullptr) return Result::not_supported;
  return Result::success;
}

Result start_process() {
  const char* const folder = std::getenv("FAKE_CUDA_DIR");
  if (folder == nullptr || std::strlen(folder) >= sizeof self.folder) return Result::no_device;
  std::strcpy(self.folder, folder);
  for (DeviceFile& file : self.files) file.number = -1;
  name_file(kControlFile, "nvidiactl");
  struct ::stat device {};
  if (::stat(self.files[kControlFile].path, &device) != 0 || S_ISCHR(device.st_mode))
    return Result::no_device;  // /dev/null lies over it
  // The devices before the socket, which only the test driver has.
  name_file(kGpuFile, "nvidia0");
  name_file(kUvmFile, "nvidia-uvm");
  name_file(kSecondUvmFile, "nvidia-uvm");
  if (std::getenv("FAKE_MIG") != nullptr) name_file(kPartFile, "nvidia-caps/nvidia-cap3");
  self.unsupported = static_cast<int>(unsupported_use());
  open_devices();
  self.socket = connect_daemon();
  if (self.socket < 0) return Result::no_device;
  ReplyMessage reply{};
  order({.order = Order::devices}, reply);
  if (reply.count == 0) return Result::no_device;
  self.device_count = static_cast<int>(reply.count);
  std::copy_n(reply.devices, reply.count, self.devices);

  if (!map_devices()) return Result::operating_system;
  self.next_address = self.window + kGranularity;
  self.next_address = self.next_address / kGranularity * kGranularity;

  int request[2], response[2];
  if (::pipe2(request, O_CLOEXEC) != 0 || ::pipe2(response, O_CLOEXEC) != 0)
    return Result::operating_system;
  self.request_source = request[0];
  self.header.request_end = request[1];
  self.header.response_end = response[0];
  self.response_sink = response[1];

  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = ::pthread_create(&thread, nullptr, restore_thread, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return Result::operating_system;
  while (self.has_begun.load() == 0) futex_wait(self.has_begun, 0);
  self.header.magic = kMagic;
  return Result::success;
}

}  // namespace

int version() {
  const char* const text = std::getenv("FAKE_VERSION");
  return text != nullptr ? std::atoi(text) : 13000;
}

bool is_stub() {
  const char* const text = std::getenv("FAKE_DRIVER");
  return text != nullptr && std::strcmp(text, "stub") == 0;
}

}  // namespace fake

using namespace fake;

// ---- the driver's functions -------------------------------------------------------------------

EXPORT Result cuInit(unsigned flags) {
  if (is_stub()) return Result::stub_library;
  if (flags != 0) return Result::invalid_value;
  const char* const mode = std::getenv("FAKE_DRIVER");
  if (mode != nullptr && std::strcmp(mode, "no_device") == 0) return Result::no_device;
  const std::lock_guard lock{tables};
  if (initialised) return Result::success;
  const Result result = start_process();
  initialised = result == Result::success;
  return result;
}

EXPORT Result cuDriverGetVersion(int* value) {
  if (value == nullptr) return Result::invalid_value;
  *value = version();
  return Result::success;
}

EXPORT Result cuGetErrorName(Result error, const char** name) {
  if (name == nullptr) return Result::invalid_value;
  switch (error) {
#define NAME(value, text) \
  case Result::value:     \
    *name = "CUDA_" text; \
    return Result::success
    NAME(success, "SUCCESS");
    NAME(invalid_value, "ERROR_INVALID_VALUE");
    NAME(out_of_memory, "ERROR_OUT_OF_MEMORY");
    NAME(not_initialized, "ERROR_NOT_INITIALIZED");
    NAME(stub_library, "ERROR_STUB_LIBRARY");
    NAME(no_device, "ERROR_NO_DEVICE");
    NAME(operating_system, "ERROR_OPERATING_SYSTEM");
    NAME(illegal_state, "ERROR_ILLEGAL_STATE");
    NAME(not_ready, "ERROR_NOT_READY");
    NAME(not_permitted, "ERROR_NOT_PERMITTED");
    NAME(not_supported, "ERROR_NOT_SUPPORTED");
#undef NAME
    default:
      *name = nullptr;
      return Result::invalid_value;
  }
}

EXPORT Result cuDeviceGetCount(int* count) {
  if (!initialised) return Result::not_initialized;
  if (count == nullptr) return Result::invalid_value;
  *count = self.device_count;
  return Result::success;
}

static bool is_device(Device device) { return device >= 0 && device < self.device_count; }

EXPORT Result cuDeviceGet(Device* device, int ordinal) {
  if (!initialised) return Result::not_initialized;
  if (device == nullptr || !is_device(ordinal)) return Result::invalid_device;
  *device = ordinal;
  return Result::success;
}

EXPORT Result cuDeviceGetName(char* name, int size, Device device) {
  if (!initialised) return Result::not_initialized;
  if (name == nullptr || size <= 0 || !is_device(device)) return Result::invalid_value;
  std::snprintf(name, static_cast<std::size_t>(size), "%s", self.devices[device].name);
  return Result::success;
}

EXPORT Result cuDeviceGetUuid_v2(Uuid* uuid, Device device) {
  if (!initialised) return Result::not_initialized;
  if (uuid == nullptr || !is_device(device)) return Result::invalid_value;
  std::memcpy(uuid->bytes, self.devices[device].uuid, 16);
  return Result::success;
}

EXPORT Result cuDeviceGetAttribute(int* value, int attribute, Device device) {
  if (!initialised) return Result::not_initialized;
  if (value == nullptr || !is_device(device)) return Result::invalid_value;
  switch (attribute) {
    case icecore::gpu::kComputeCapabilityMajor:
      *value = self.devices[device].major;
      return Result::success;
    case icecore::gpu::kComputeCapabilityMinor:
      *value = self.devices[device].minor;
      return Result::success;
    default:
      return Result::invalid_value;
  }
}

EXPORT Result cuDeviceTotalMem_v2(std::size_t* bytes, Device device) {
  if (!initialised) return Result::not_initialized;
  if (bytes == nullptr || !is_device(device)) return Result::invalid_value;
  *bytes = self.devices[device].total;
  return Result::success;
}

EXPORT Result cuDevicePrimaryCtxRetain(void** context, Device device) {
  return gated([&] {
    if (context == nullptr || !is_device(device)) return Result::invalid_value;
    *context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(device) + 1);
    return Result::success;
  });
}

EXPORT Result cuDevicePrimaryCtxRelease_v2(Device device) {
  return gated([&] { return is_device(device) ? Result::success : Result::invalid_device; });
}

EXPORT Result cuCtxSetCurrent(void* context) {
  return gated([&] {
    const auto number = static_cast<int>(reinterpret_cast<std::uintptr_t>(context)) - 1;
    if (number >= self.device_count) return Result::invalid_context;
    current_device = number;
    return Result::success;
  });
}

EXPORT Result cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  return in_context([&] {
    if (free == nullptr || total == nullptr) return Result::invalid_value;
    ReplyMessage reply{};
    const Result result =
        order({.order = Order::info, .device = static_cast<std::uint32_t>(current_device)}, reply);
    *free = reply.free;
    *total = reply.total;
    return result;
  });
}

// ---- names ------------------------------------------------------------------------------------

[[maybe_unused]] static Result find(const char* name, void** function, int wanted, int* status) {
  if (name == nullptr || function == nullptr || wanted > version()) return Result::invalid_value;
  *function = nullptr;
  if (status != nullptr) *status = 1;  // not found
  for (const icecore::gpu::Symbol& symbol : icecore::gpu::kSymbols) {
    if (std::strcmp(symbol.name, name) != 0) continue;
    if (wanted < symbol.since) {
      if (status != nullptr) *status = 2;  // version too low
      return Result::success;
    }
    static void* const own = [] {
      ::Dl_info info{};
      ::dladdr(reinterpret_cast<void*>(&start_process), &info);
      return ::dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }();
    *function = ::dlsym(own, symbol.exported);
    if (*function != nullptr && status != nullptr) *status = 0;
    return Result::success;
  }
  return Result::not_found;
}

// As every driver since CUDA 12 has it, as those before it, or neither.
#if FAKE_PROC_ADDRESS == 2
EXPORT Result cuGetProcAddress_v2(const char* name, void** function, int wanted, std::uint64_t,
                                  int* status) {
  return find(name, function, wanted, status);
}
#elif FAKE_PROC_ADDRESS == 1
EXPORT Result cuGetProcAddress(const char* name, void** function, int wanted, std::uint64_t) {
  return find(name, function, wanted, nullptr);
}
#endif
