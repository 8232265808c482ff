/* SPDX-License-Identifier: Apache-2.0
 *
 * What libicecore_guest uses of the CUDA Driver API, declared by ourselves like lib/gpu/cuda.hpp;
 * tests/fake_cuda/cuda_header_test.cpp holds both against cuda.h. */
#ifndef ICECORE_GUEST_GPU_DRIVER_H
#define ICECORE_GUEST_GPU_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  CU_SUCCESS = 0,
  CU_INVALID_VALUE = 1,
  CU_OUT_OF_MEMORY = 2,
  CU_NOT_INITIALIZED = 3,
  CU_FILE_NOT_FOUND = 301,
  CU_OPERATING_SYSTEM = 304,
  CU_NOT_SUPPORTED = 801,
  CU_UNKNOWN = 999,
  CU_PINNED_MEMORY = 1,       /* CU_MEM_ALLOCATION_TYPE_PINNED */
  CU_ON_DEVICE = 1,           /* CU_MEM_LOCATION_TYPE_DEVICE */
  CU_READ_WRITE = 3,          /* CU_MEM_ACCESS_FLAGS_PROT_READWRITE */
  CU_MINIMUM_GRANULARITY = 0, /* CU_MEM_ALLOC_GRANULARITY_MINIMUM */
  CU_PORTABLE = 1,            /* CU_MEMHOSTREGISTER_PORTABLE */
  CU_NON_BLOCKING = 1,        /* CU_STREAM_NON_BLOCKING */
  CU_BLOCKING_NO_TIMING = 3   /* CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING */
};

typedef int cu_result;
typedef unsigned long long cu_address;
typedef unsigned long long cu_handle;
typedef void* cu_object; /* a context, stream or event */

struct cu_location {
  int type;
  int id;
};
struct cu_properties {
  int type;
  int shared_as; /* requestedHandleTypes */
  struct cu_location location;
  void* windows_metadata;
  unsigned char flags[8];
};
struct cu_access {
  struct cu_location location;
  int flags;
};

/* The names without "cu" and version.  All of them since CUDA 11.0. */
struct cu_driver {
  cu_result (*DeviceGetCount)(int* count);
  cu_result (*DevicePrimaryCtxRetain)(cu_object* context, int device);
  cu_result (*CtxSetCurrent)(cu_object context);
  cu_result (*CtxSynchronize)(void);
  cu_result (*MemGetAllocationGranularity)(size_t* size, const struct cu_properties* properties,
                                           int option);
  cu_result (*MemAddressReserve)(cu_address* address, size_t size, size_t alignment,
                                 cu_address wanted, unsigned long long flags);
  cu_result (*MemAddressFree)(cu_address address, size_t size);
  cu_result (*MemCreate)(cu_handle* handle, size_t size, const struct cu_properties* properties,
                         unsigned long long flags);
  cu_result (*MemRelease)(cu_handle handle);
  cu_result (*MemMap)(cu_address address, size_t size, size_t offset, cu_handle handle,
                      unsigned long long flags);
  cu_result (*MemUnmap)(cu_address address, size_t size);
  cu_result (*MemSetAccess)(cu_address address, size_t size, const struct cu_access* access,
                            size_t count);
  cu_result (*MemGetAccess)(unsigned long long* flags, const struct cu_location* location,
                            cu_address address);
  cu_result (*MemGetAllocationPropertiesFromHandle)(struct cu_properties* properties,
                                                    cu_handle handle);
  cu_result (*MemHostRegister)(void* memory, size_t size, unsigned flags);
  cu_result (*MemHostUnregister)(void* memory);
  cu_result (*MemcpyDtoHAsync)(void* to, cu_address from, size_t size, cu_object stream);
  cu_result (*MemcpyHtoDAsync)(cu_address to, const void* from, size_t size, cu_object stream);
  cu_result (*MemsetD8Async)(cu_address to, unsigned char value, size_t size, cu_object stream);
  cu_result (*StreamCreate)(cu_object* stream, unsigned flags);
  cu_result (*StreamSynchronize)(cu_object stream);
  cu_result (*StreamDestroy)(cu_object stream);
  cu_result (*EventCreate)(cu_object* event, unsigned flags);
  cu_result (*EventRecord)(cu_object event, cu_object stream);
  cu_result (*EventSynchronize)(cu_object event);
  cu_result (*EventDestroy)(cu_object event);
};

/* NULL when the program has not loaded libcuda.so.1, or one without these functions. */
const struct cu_driver* icecore_guest_driver(void);

#ifdef __cplusplus
}
#endif
#endif
