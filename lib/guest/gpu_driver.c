/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "gpu_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct cu_driver driver;
static bool loaded;

/* The names as they are exported: what cudart asks for by cuGetProcAddress are the same functions.
 */
static bool find_all(void* library) {
  const struct {
    const char* name;
    void* function;
  } wanted[] = {
      {"cuDeviceGetCount", &driver.DeviceGetCount},
      {"cuDevicePrimaryCtxRetain", &driver.DevicePrimaryCtxRetain},
      {"cuCtxSetCurrent", &driver.CtxSetCurrent},
      {"cuCtxSynchronize", &driver.CtxSynchronize},
      {"cuMemGetAllocationGranularity", &driver.MemGetAllocationGranularity},
      {"cuMemAddressReserve", &driver.MemAddressReserve},
      {"cuMemAddressFree", &driver.MemAddressFree},
      {"cuMemCreate", &driver.MemCreate},
      {"cuMemRelease", &driver.MemRelease},
      {"cuMemMap", &driver.MemMap},
      {"cuMemUnmap", &driver.MemUnmap},
      {"cuMemSetAccess", &driver.MemSetAccess},
      {"cuMemGetAccess", &driver.MemGetAccess},
      {"cuMemGetAllocationPropertiesFromHandle", &driver.MemGetAllocationPropertiesFromHandle},
      {"cuMemHostRegister_v2", &driver.MemHostRegister},
      {"cuMemHostUnregister", &driver.MemHostUnregister},
      {"cuMemcpyDtoHAsync_v2", &driver.MemcpyDtoHAsync},
      {"cuMemcpyHtoDAsync_v2", &driver.MemcpyHtoDAsync},
      {"cuMemsetD8Async", &driver.MemsetD8Async},
      {"cuStreamCreate", &driver.StreamCreate},
      {"cuStreamSynchronize", &driver.StreamSynchronize},
      {"cuStreamDestroy_v2", &driver.StreamDestroy},
      {"cuEventCreate", &driver.EventCreate},
      {"cuEventRecord", &driver.EventRecord},
      {"cuEventSynchronize", &driver.EventSynchronize},
      {"cuEventDestroy_v2", &driver.EventDestroy},
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; ++i) {
    void* const found = dlsym(library, wanted[i].name);
    if (found == NULL) return false;
    memcpy(wanted[i].function, &found, sizeof found);
  }
  return true;
}

const struct cu_driver* icecore_guest_driver(void) {
  pthread_mutex_lock(&mutex);
  if (!loaded) {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    loaded = library != NULL && find_all(library);
    if (library != NULL) dlclose(library); /* the program has it still */
  }
  pthread_mutex_unlock(&mutex);
  return loaded ? &driver : NULL;
}
