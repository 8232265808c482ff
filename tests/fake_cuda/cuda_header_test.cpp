// SPDX-License-Identifier: Apache-2.0
//
// Our declarations of the CUDA Driver API against NVIDIA's, where a toolkit is installed: CMake
// says which, and defines ICECORE_CUDA_H.
#include <catch2/catch.hpp>

#include <type_traits>

#include "gpu/cuda.hpp"
#include "guest/gpu_driver.h"
#include "support/skip.hpp"

#ifdef ICECORE_CUDA_H
#include <cuda.h>

namespace icecore::gpu {
namespace {

// A result, whatever enumeration it is, is an int to the calling convention; so are all other types
// compared by kind and size.
template <class A, class B>
constexpr bool same_kind() {
  if constexpr (std::is_enum_v<A> || std::is_enum_v<B>)
    return sizeof(A) == sizeof(B);
  else if constexpr (std::is_pointer_v<A> && std::is_pointer_v<B>)
    return true;
  else if constexpr (std::is_integral_v<A> && std::is_integral_v<B>)
    return sizeof(A) == sizeof(B) && std::is_signed_v<A> == std::is_signed_v<B>;
  else
    return false;
}

template <class Ours, class Theirs>
struct SameCall : std::false_type {};
template <class R1, class... A1, class R2, class... A2>
struct SameCall<R1 (*)(A1...), R2(A2...)> {
  static constexpr bool check() {
    if constexpr (sizeof...(A1) != sizeof...(A2))
      return false;
    else
      return same_kind<R1, R2>() && (same_kind<A1, A2>() && ...);
  }
  static constexpr bool value = check();
};

#define SAME_CALL(ours, theirs) static_assert(SameCall<ours, decltype(theirs)>::value, #theirs)
SAME_CALL(Init, ::cuInit);
SAME_CALL(DriverGetVersion, ::cuDriverGetVersion);
SAME_CALL(GetErrorName, ::cuGetErrorName);
SAME_CALL(DeviceGetCount, ::cuDeviceGetCount);
SAME_CALL(DeviceGet, ::cuDeviceGet);
SAME_CALL(DeviceGetName, ::cuDeviceGetName);
SAME_CALL(DeviceGetUuid, ::cuDeviceGetUuid_v2);
SAME_CALL(DeviceGetAttribute, ::cuDeviceGetAttribute);
SAME_CALL(DeviceTotalMem, ::cuDeviceTotalMem_v2);
SAME_CALL(DevicePrimaryCtxRetain, ::cuDevicePrimaryCtxRetain);
SAME_CALL(DevicePrimaryCtxRelease, ::cuDevicePrimaryCtxRelease_v2);
SAME_CALL(CtxSetCurrent, ::cuCtxSetCurrent);
SAME_CALL(MemGetInfo, ::cuMemGetInfo_v2);

#define SAME_VALUE(ours, theirs) \
  static_assert(static_cast<int>(ours) == static_cast<int>(theirs), #theirs)
SAME_VALUE(Result::success, CUDA_SUCCESS);
SAME_VALUE(Result::invalid_value, CUDA_ERROR_INVALID_VALUE);
SAME_VALUE(Result::out_of_memory, CUDA_ERROR_OUT_OF_MEMORY);
SAME_VALUE(Result::not_initialized, CUDA_ERROR_NOT_INITIALIZED);
SAME_VALUE(Result::stub_library, CUDA_ERROR_STUB_LIBRARY);
SAME_VALUE(Result::no_device, CUDA_ERROR_NO_DEVICE);
SAME_VALUE(Result::invalid_device, CUDA_ERROR_INVALID_DEVICE);
SAME_VALUE(Result::invalid_context, CUDA_ERROR_INVALID_CONTEXT);
SAME_VALUE(Result::ecc_uncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE);
SAME_VALUE(Result::operating_system, CUDA_ERROR_OPERATING_SYSTEM);
SAME_VALUE(Result::invalid_handle, CUDA_ERROR_INVALID_HANDLE);
SAME_VALUE(Result::illegal_state, CUDA_ERROR_ILLEGAL_STATE);
SAME_VALUE(Result::not_found, CUDA_ERROR_NOT_FOUND);
SAME_VALUE(Result::not_ready, CUDA_ERROR_NOT_READY);
SAME_VALUE(Result::illegal_address, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME_VALUE(Result::not_permitted, CUDA_ERROR_NOT_PERMITTED);
SAME_VALUE(Result::not_supported, CUDA_ERROR_NOT_SUPPORTED);
SAME_VALUE(Result::unknown, CUDA_ERROR_UNKNOWN);
SAME_VALUE(kComputeCapabilityMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME_VALUE(kComputeCapabilityMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(sizeof(Device) == sizeof(CUdevice));
static_assert(sizeof(Context) == sizeof(CUcontext));
static_assert(sizeof(DeviceAddress) == sizeof(CUdeviceptr));
static_assert(sizeof(Uuid) == sizeof(CUuuid));

#if CUDA_VERSION >= 12080
SAME_CALL(CheckpointProcessGetRestoreThreadId, ::cuCheckpointProcessGetRestoreThreadId);
SAME_CALL(CheckpointProcessGetState, ::cuCheckpointProcessGetState);
SAME_CALL(CheckpointProcessLock, ::cuCheckpointProcessLock);
SAME_CALL(CheckpointProcessCheckpoint, ::cuCheckpointProcessCheckpoint);
SAME_CALL(CheckpointProcessRestore, ::cuCheckpointProcessRestore);
SAME_CALL(CheckpointProcessUnlock, ::cuCheckpointProcessUnlock);
SAME_VALUE(ProcessState::running, CU_PROCESS_STATE_RUNNING);
SAME_VALUE(ProcessState::locked, CU_PROCESS_STATE_LOCKED);
SAME_VALUE(ProcessState::checkpointed, CU_PROCESS_STATE_CHECKPOINTED);
SAME_VALUE(ProcessState::failed, CU_PROCESS_STATE_FAILED);
static_assert(sizeof(LockArguments) == sizeof(CUcheckpointLockArgs));
static_assert(offsetof(LockArguments, timeout_ms) == offsetof(CUcheckpointLockArgs, timeoutMs));
static_assert(sizeof(CheckpointArguments) == sizeof(CUcheckpointCheckpointArgs));
static_assert(sizeof(RestoreArguments) == sizeof(CUcheckpointRestoreArgs));
static_assert(sizeof(UnlockArguments) == sizeof(CUcheckpointUnlockArgs));
#endif
#if CUDA_VERSION >= 13000
static_assert(sizeof(GpuPair) == sizeof(CUcheckpointGpuPair));
static_assert(offsetof(GpuPair, old_uuid) == offsetof(CUcheckpointGpuPair, oldUuid));
static_assert(offsetof(RestoreArguments, pairs) == offsetof(CUcheckpointRestoreArgs, gpuPairs));
static_assert(offsetof(RestoreArguments, pair_count) ==
              offsetof(CUcheckpointRestoreArgs, gpuPairsCount));
#endif

// Those of libicecore_guest.
SAME_CALL(decltype(cu_driver::DeviceGetCount), ::cuDeviceGetCount);
SAME_CALL(decltype(cu_driver::DevicePrimaryCtxRetain), ::cuDevicePrimaryCtxRetain);
SAME_CALL(decltype(cu_driver::CtxSetCurrent), ::cuCtxSetCurrent);
SAME_CALL(decltype(cu_driver::CtxSynchronize), ::cuCtxSynchronize);
SAME_CALL(decltype(cu_driver::MemGetAllocationGranularity), ::cuMemGetAllocationGranularity);
SAME_CALL(decltype(cu_driver::MemAddressReserve), ::cuMemAddressReserve);
SAME_CALL(decltype(cu_driver::MemAddressFree), ::cuMemAddressFree);
SAME_CALL(decltype(cu_driver::MemCreate), ::cuMemCreate);
SAME_CALL(decltype(cu_driver::MemRelease), ::cuMemRelease);
SAME_CALL(decltype(cu_driver::MemMap), ::cuMemMap);
SAME_CALL(decltype(cu_driver::MemUnmap), ::cuMemUnmap);
SAME_CALL(decltype(cu_driver::MemSetAccess), ::cuMemSetAccess);
SAME_CALL(decltype(cu_driver::MemGetAccess), ::cuMemGetAccess);
SAME_CALL(decltype(cu_driver::MemGetAllocationPropertiesFromHandle),
          ::cuMemGetAllocationPropertiesFromHandle);
SAME_CALL(decltype(cu_driver::MemHostRegister), ::cuMemHostRegister);
SAME_CALL(decltype(cu_driver::MemHostUnregister), ::cuMemHostUnregister);
SAME_CALL(decltype(cu_driver::MemcpyDtoHAsync), ::cuMemcpyDtoHAsync);
SAME_CALL(decltype(cu_driver::MemcpyHtoDAsync), ::cuMemcpyHtoDAsync);
SAME_CALL(decltype(cu_driver::MemsetD8Async), ::cuMemsetD8Async);
SAME_CALL(decltype(cu_driver::StreamCreate), ::cuStreamCreate);
SAME_CALL(decltype(cu_driver::StreamSynchronize), ::cuStreamSynchronize);
SAME_CALL(decltype(cu_driver::StreamDestroy), ::cuStreamDestroy);
SAME_CALL(decltype(cu_driver::EventCreate), ::cuEventCreate);
SAME_CALL(decltype(cu_driver::EventRecord), ::cuEventRecord);
SAME_CALL(decltype(cu_driver::EventSynchronize), ::cuEventSynchronize);
SAME_CALL(decltype(cu_driver::EventDestroy), ::cuEventDestroy);
SAME_VALUE(CU_FILE_NOT_FOUND, CUDA_ERROR_FILE_NOT_FOUND);
SAME_VALUE(CU_PINNED_MEMORY, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME_VALUE(CU_ON_DEVICE, CU_MEM_LOCATION_TYPE_DEVICE);
SAME_VALUE(CU_READ_WRITE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME_VALUE(CU_MINIMUM_GRANULARITY, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
SAME_VALUE(CU_PORTABLE, CU_MEMHOSTREGISTER_PORTABLE);
SAME_VALUE(CU_NON_BLOCKING, CU_STREAM_NON_BLOCKING);
SAME_VALUE(CU_BLOCKING_NO_TIMING, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING);
static_assert(sizeof(cu_properties) == sizeof(CUmemAllocationProp));
static_assert(offsetof(cu_properties, shared_as) ==
              offsetof(CUmemAllocationProp, requestedHandleTypes));
static_assert(offsetof(cu_properties, location) == offsetof(CUmemAllocationProp, location));
static_assert(offsetof(cu_properties, flags) == offsetof(CUmemAllocationProp, allocFlags));
static_assert(sizeof(cu_location) == sizeof(CUmemLocation));
static_assert(sizeof(cu_access) == sizeof(CUmemAccessDesc));
static_assert(offsetof(cu_access, flags) == offsetof(CUmemAccessDesc, flags));

TEST_CASE("our declarations of CUDA are NVIDIA's", "[gpu]") {
  WARN("checked against cuda.h of CUDA " << CUDA_VERSION / 1000 << '.' << CUDA_VERSION % 1000 / 10);
  CHECK(CUDA_VERSION >= 12000);
}

}  // namespace
}  // namespace icecore::gpu

#else

TEST_CASE("our declarations of CUDA are NVIDIA's", "[gpu]") {
  test::skip("no cuda.h here: install a CUDA toolkit of 12.8 or later to have it checked");
}

#endif
