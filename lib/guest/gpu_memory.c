/* SPDX-License-Identifier: Apache-2.0
 *
 * What comes and goes is the memory behind a buffer's addresses: cuMemUnmap, cuMemRelease;
 * cuMemCreate, cuMemMap, cuMemSetAccess. */
#include <string.h>

#include "gpu.h"

typedef struct icecore_gpu_buffer buffer_t;

static cu_object contexts[ICECORE_GPU_MAX_DEVICES];

_Static_assert(sizeof(struct cu_properties) == sizeof(((buffer_t*)0)->properties), "");

static struct cu_properties properties_of(const buffer_t* buffer) {
  struct cu_properties properties;
  memcpy(&properties, buffer->properties, sizeof properties);
  return properties;
}

cu_result icecore_guest_gpu_context_of(int device, cu_object* context) {
  if (device < 0 || device >= ICECORE_GPU_MAX_DEVICES) return CU_INVALID_VALUE;
  cu_result result = CU_SUCCESS;
  if (contexts[device] == NULL)
    result = icecore_guest_driver()->DevicePrimaryCtxRetain(&contexts[device], device);
  *context = contexts[device];
  return result;
}

static cu_result give_access(const buffer_t* buffer) {
  struct cu_access access[ICECORE_GPU_MAX_DEVICES];
  size_t count = 0;
  for (int i = 0; i < ICECORE_GPU_MAX_DEVICES; ++i)
    if (buffer->access[i] != 0)
      access[count++] = (struct cu_access){{CU_ON_DEVICE, i}, buffer->access[i]};
  return icecore_guest_driver()->MemSetAccess(buffer->address, buffer->size_bytes, access, count);
}

/* Maps at the reserved addresses; reserves them again if the driver has forgotten them. */
static cu_result map_at_its_place(const buffer_t* buffer) {
  const struct cu_driver* const cu = icecore_guest_driver();
  cu_result result = cu->MemMap(buffer->address, buffer->size_bytes, 0, buffer->handle, 0);
  if (result != CU_INVALID_VALUE) return result;
  cu_address place = 0;
  if (cu->MemAddressReserve(&place, buffer->size_bytes, 0, buffer->address, 0) != CU_SUCCESS)
    return result;
  if (place == buffer->address) /* which the driver takes as a wish only */
    result = cu->MemMap(buffer->address, buffer->size_bytes, 0, buffer->handle, 0);
  if (place != buffer->address || result != CU_SUCCESS)
    cu->MemAddressFree(place, buffer->size_bytes);
  return result;
}

cu_result icecore_guest_gpu_take_memory(buffer_t* buffer) {
  const struct cu_driver* const cu = icecore_guest_driver();
  const struct cu_properties properties = properties_of(buffer);
  cu_handle handle = 0;
  cu_result result = cu->MemCreate(&handle, buffer->size_bytes, &properties, 0);
  if (result != CU_SUCCESS) return result;
  buffer->handle = handle;
  result = map_at_its_place(buffer);
  if (result == CU_SUCCESS) {
    result = give_access(buffer);
    if (result == CU_SUCCESS) return result;
    cu->MemUnmap(buffer->address, buffer->size_bytes);
  }
  cu->MemRelease(handle);
  buffer->handle = 0;
  return result;
}

cu_result icecore_guest_gpu_give_memory_back(buffer_t* buffer) {
  const struct cu_driver* const cu = icecore_guest_driver();
  const cu_result result = cu->MemUnmap(buffer->address, buffer->size_bytes);
  if (result != CU_SUCCESS) return result;
  cu->MemRelease(buffer->handle); /* what it does not free, the driver saves */
  buffer->handle = 0;
  return result;
}

struct zeroing {
  cu_address address;
  size_t size;
};

static cu_result zero_in_context(void* user) {
  const struct cu_driver* const cu = icecore_guest_driver();
  const struct zeroing* const what = user;
  cu_object stream = NULL;
  cu_result result = cu->StreamCreate(&stream, CU_NON_BLOCKING);
  if (result != CU_SUCCESS) return result;
  result = cu->MemsetD8Async(what->address, 0, what->size, stream);
  const cu_result done = cu->StreamSynchronize(stream);
  cu->StreamDestroy(stream);
  return result == CU_SUCCESS ? done : result;
}

cu_result icecore_guest_gpu_zero(const buffer_t* buffer, size_t offset) {
  if (offset == buffer->size_bytes) return CU_SUCCESS;
  cu_object context = NULL;
  const cu_result result = icecore_guest_gpu_context_of(buffer->device, &context);
  if (result != CU_SUCCESS) return result;
  struct zeroing what = {buffer->address + offset, buffer->size_bytes - offset};
  return icecore_guest_gpu_in_context(context, zero_in_context, &what);
}

void icecore_guest_gpu_forget_contexts(void) { memset(contexts, 0, sizeof contexts); }
