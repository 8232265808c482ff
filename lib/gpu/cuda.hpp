// SPDX-License-Identifier: Apache-2.0
#pragma once

// What icecore uses of NVIDIA's CUDA Driver API, declared by ourselves: cuda.h may not be passed
// on, and no machine without CUDA has it.  tests/fake_cuda/cuda_header_test.cpp holds every number
// here against cuda.h where there is one.
//
// Facts relied on here (cuda.h 12.8 to 13.4):
//  * Each of the four kinds of arguments of the checkpoint calls is 64 bytes; what a version does
//  not
//    know must be zero.  The list of GPU pairs came with 13.0, in bytes that were reserved before.
//  * cuGetProcAddress wants the name without suffix and the version of CUDA that brought it;
//  SUCCESS
//    with a null pointer means that the driver has no such function.

#include <cstddef>
#include <cstdint>

namespace icecore::gpu {

enum class Result : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  not_initialized = 3,
  stub_library = 34,
  no_device = 100,
  invalid_device = 101,
  invalid_context = 201,
  ecc_uncorrectable = 214,
  operating_system = 304,
  invalid_handle = 400,
  illegal_state = 401,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  not_permitted = 800,
  not_supported = 801,
  unknown = 999,
};

/// CUprocessState.  CUDA 13.4 adds two for a call that is under way.
enum class ProcessState : int {
  running = 0,
  locked = 1,
  checkpointed = 2,
  failed = 3,
  checkpointing = 4,
  restoring = 5,
};

struct Uuid {
  std::uint8_t bytes[16];
};
static_assert(sizeof(Uuid) == 16 && alignof(Uuid) == 1);

struct LockArguments {
  std::uint32_t timeout_ms;  ///< 0: for ever
  std::uint32_t reserved0;
  std::uint64_t reserved1[7];
};
static_assert(sizeof(LockArguments) == 64);

struct CheckpointArguments {
  std::uint64_t reserved[8];
};
static_assert(sizeof(CheckpointArguments) == 64);

struct GpuPair {
  Uuid old_uuid;
  Uuid new_uuid;
};
static_assert(sizeof(GpuPair) == 32);

struct RestoreArguments {
  GpuPair* pairs;
  std::uint32_t pair_count;
  char reserved[44];
  std::uint64_t reserved1;
};
static_assert(sizeof(RestoreArguments) == 64 && offsetof(RestoreArguments, pair_count) == 8);

struct UnlockArguments {
  std::uint64_t reserved[8];
};
static_assert(sizeof(UnlockArguments) == 64);

using Device = int;
using Context = struct OpaqueContext*;
using DeviceAddress = unsigned long long;

constexpr int kComputeCapabilityMajor = 75;  // CU_DEVICE_ATTRIBUTE_…
constexpr int kComputeCapabilityMinor = 76;

/// Versions of CUDA, as cuDriverGetVersion and cuGetProcAddress have them.
constexpr int kPairsVersion = 13000;  ///< another GPU than before

using GetProcAddress = Result (*)(const char* name, void** function, int version,
                                  std::uint64_t flags);
using GetProcAddressV2 = Result (*)(const char* name, void** function, int version,
                                    std::uint64_t flags, int* status);
using Init = Result (*)(unsigned flags);
using DriverGetVersion = Result (*)(int* version);
using GetErrorName = Result (*)(Result error, const char** name);
using DeviceGetCount = Result (*)(int* count);
using DeviceGet = Result (*)(Device* device, int ordinal);
using DeviceGetName = Result (*)(char* name, int size, Device device);
using DeviceGetUuid = Result (*)(Uuid* uuid, Device device);
using DeviceGetAttribute = Result (*)(int* value, int attribute, Device device);
using DeviceTotalMem = Result (*)(std::size_t* bytes, Device device);
using DevicePrimaryCtxRetain = Result (*)(Context* context, Device device);
using DevicePrimaryCtxRelease = Result (*)(Device device);
using CtxSetCurrent = Result (*)(Context context);
using MemGetInfo = Result (*)(std::size_t* free_bytes, std::size_t* total_bytes);
using CheckpointProcessGetRestoreThreadId = Result (*)(int pid, int* tid);
using CheckpointProcessGetState = Result (*)(int pid, ProcessState* state);
using CheckpointProcessLock = Result (*)(int pid, LockArguments* arguments);
using CheckpointProcessCheckpoint = Result (*)(int pid, CheckpointArguments* arguments);
using CheckpointProcessRestore = Result (*)(int pid, RestoreArguments* arguments);
using CheckpointProcessUnlock = Result (*)(int pid, UnlockArguments* arguments);

/// A function of the driver: its name, the version of CUDA that brought it, and how it is exported.
struct Symbol {
  const char* name;
  int since;
  const char* exported;
};
inline constexpr Symbol kSymbols[] = {
    {"cuInit", 2000, "cuInit"},
    {"cuDriverGetVersion", 2020, "cuDriverGetVersion"},
    {"cuGetErrorName", 6000, "cuGetErrorName"},
    {"cuDeviceGetCount", 2000, "cuDeviceGetCount"},
    {"cuDeviceGet", 2000, "cuDeviceGet"},
    {"cuDeviceGetName", 2000, "cuDeviceGetName"},
    {"cuDeviceGetUuid", 11040, "cuDeviceGetUuid_v2"},
    {"cuDeviceGetAttribute", 2000, "cuDeviceGetAttribute"},
    {"cuDeviceTotalMem", 3020, "cuDeviceTotalMem_v2"},
    {"cuDevicePrimaryCtxRetain", 7000, "cuDevicePrimaryCtxRetain"},
    {"cuDevicePrimaryCtxRelease", 11000, "cuDevicePrimaryCtxRelease_v2"},
    {"cuCtxSetCurrent", 4000, "cuCtxSetCurrent"},
    {"cuMemGetInfo", 3020, "cuMemGetInfo_v2"},
    {"cuCheckpointProcessGetRestoreThreadId", 12080, "cuCheckpointProcessGetRestoreThreadId"},
    {"cuCheckpointProcessGetState", 12080, "cuCheckpointProcessGetState"},
    {"cuCheckpointProcessLock", 12080, "cuCheckpointProcessLock"},
    {"cuCheckpointProcessCheckpoint", 12080, "cuCheckpointProcessCheckpoint"},
    {"cuCheckpointProcessRestore", 12080, "cuCheckpointProcessRestore"},
    {"cuCheckpointProcessUnlock", 12080, "cuCheckpointProcessUnlock"},
};

}  // namespace icecore::gpu
