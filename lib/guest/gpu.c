/* SPDX-License-Identifier: Apache-2.0
 *
 * Buffers in GPUs: what programs call.  A buffer keeps its reservation of addresses from the first
 * to the last; what comes and goes is the memory behind it.  So the driver, which restores
 * reservations, finds nothing to save there, and no address is ever up for grabs. */
#define _GNU_SOURCE
#include "gpu.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct icecore_gpu_buffer buffer_t;

struct gpu_list icecore_guest_gpu_list = {.mutex = PTHREAD_MUTEX_INITIALIZER};
static struct gpu_list* const list = &icecore_guest_gpu_list;

/* ---- the list ----------------------------------------------------------------------------------
 */

void icecore_guest_gpu_forget_all(void) {
  if (list->buffers != NULL) {
    for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i) {
      if (list->buffers[i].address == 0) continue;
      icecore_guest_gpu_free_carrier(&list->buffers[i]);
      if (list->buffers[i].file >= 0) close(list->buffers[i].file);
    }
    munmap(list->buffers, sizeof(buffer_t) * ICECORE_GPU_MAX_BUFFERS);
  }
  list->buffers = NULL;
  pthread_mutex_init(&list->mutex, NULL);
  icecore_guest_gpu_forget_contexts();
  icecore_guest_gpu_forget_gate();
}

/* With the list held, and the caller inside the gate. */
static bool make_list(void) {
  if (list->buffers != NULL) return true;
  struct icecore_area* const area = icecore_guest_start();
  if (area == NULL) return false;
  void* const memory = mmap(NULL, sizeof(buffer_t) * ICECORE_GPU_MAX_BUFFERS,
                            PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  area->gpu_buffer_count = ICECORE_GPU_MAX_BUFFERS;
  __atomic_store_n(&area->gpu_buffers, (uint64_t)(uintptr_t)memory, __ATOMIC_RELEASE);
  __atomic_store_n(&list->buffers, (buffer_t*)memory, __ATOMIC_RELEASE);
  return true;
}

static buffer_t* find(unsigned long long address) {
  if (list->buffers == NULL || address == 0) return NULL;
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (list->buffers[i].address == address) return &list->buffers[i];
  return NULL;
}

/* As much as both sides know. */
static struct icecore_guest_gpu_options known(const struct icecore_guest_gpu_options* options) {
  struct icecore_guest_gpu_options all;
  memset(&all, 0, sizeof all);
  if (options != NULL)
    memcpy(&all, options, options->struct_size < sizeof all ? options->struct_size : sizeof all);
  return all;
}

/* A file that is long enough, open; -1 without one. */
static cu_result open_file(const struct icecore_guest_gpu_options* options, buffer_t* buffer) {
  buffer->file = -1;
  if (options->contents != ICECORE_GUEST_GPU_FILE) return CU_SUCCESS;
  if (options->file == NULL) return CU_INVALID_VALUE;
  buffer->file_offset = options->file_offset;
  buffer->file = open(options->file, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (buffer->file >= 0 && fstat(buffer->file, &status) == 0 &&
      (uint64_t)status.st_size >= buffer->contents_bytes &&
      (uint64_t)status.st_size - buffer->contents_bytes >= options->file_offset) {
    buffer->file_time_s = status.st_mtim.tv_sec;
    buffer->file_time_ns = status.st_mtim.tv_nsec;
    return CU_SUCCESS;
  }
  if (buffer->file >= 0) close(buffer->file);
  return CU_FILE_NOT_FOUND;
}

static cu_result describe(const struct icecore_guest_gpu_options* options, size_t size,
                          buffer_t* buffer) {
  const struct icecore_guest_gpu_options given = known(options);
  memset(buffer, 0, sizeof *buffer);
  buffer->file = -1;
  if (icecore_guest_driver() == NULL) return CU_NOT_INITIALIZED;
  if (given.contents > ICECORE_GUEST_GPU_FILE || size == 0 || given.device < 0 ||
      given.device >= ICECORE_GPU_MAX_DEVICES)
    return CU_INVALID_VALUE;
  buffer->device = given.device;
  buffer->contents = given.contents;
  buffer->contents_bytes = size;
  return open_file(&given, buffer);
}

/* Into a free entry. */
static cu_result enlist(const buffer_t* buffer) {
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (list->buffers[i].address == 0) {
      list->buffers[i] = *buffer;
      return CU_SUCCESS;
    }
  return CU_OUT_OF_MEMORY;
}

static cu_result make_memory(buffer_t* buffer) {
  const struct cu_driver* const cu = icecore_guest_driver();
  const struct cu_properties properties = {.type = CU_PINNED_MEMORY,
                                           .location = {CU_ON_DEVICE, buffer->device}};
  memcpy(buffer->properties, &properties, sizeof properties);
  buffer->access[buffer->device] = CU_READ_WRITE;
  size_t unit = 0;
  cu_result result = cu->MemGetAllocationGranularity(&unit, &properties, CU_MINIMUM_GRANULARITY);
  if (result != CU_SUCCESS) return result;
  if (buffer->contents_bytes > SIZE_MAX - unit) return CU_INVALID_VALUE;
  buffer->size_bytes = (buffer->contents_bytes + unit - 1) / unit * unit;
  cu_address address = 0;
  result = cu->MemAddressReserve(&address, buffer->size_bytes, 0, 0, 0);
  if (result != CU_SUCCESS) return result;
  buffer->address = address;
  result = icecore_guest_gpu_take_memory(buffer);
  if (result == CU_SUCCESS) {
    result = icecore_guest_gpu_zero(buffer, 0);
    if (result == CU_SUCCESS && buffer->file >= 0)
      result = icecore_guest_gpu_fill_from_file(buffer);
    if (result == CU_SUCCESS) result = enlist(buffer);
    if (result == CU_SUCCESS) return result;
    icecore_guest_gpu_give_memory_back(buffer);
  }
  cu->MemAddressFree(address, buffer->size_bytes);
  return result;
}

/* What of the program's own mapping has to be known to make it again. */
static cu_result look_at_memory(buffer_t* buffer) {
  const struct cu_driver* const cu = icecore_guest_driver();
  struct cu_properties properties;
  int devices = 0;
  cu_result result = cu->MemGetAllocationPropertiesFromHandle(&properties, buffer->handle);
  if (result == CU_SUCCESS) result = cu->DeviceGetCount(&devices);
  if (result != CU_SUCCESS) return result;
  if (properties.shared_as != 0) return CU_NOT_SUPPORTED;
  if (properties.location.type != CU_ON_DEVICE || properties.location.id != buffer->device)
    return CU_INVALID_VALUE;
  memcpy(buffer->properties, &properties, sizeof properties);
  for (int i = 0; i < devices && i < ICECORE_GPU_MAX_DEVICES; ++i) {
    const struct cu_location location = {CU_ON_DEVICE, i};
    unsigned long long flags = 0;
    result = cu->MemGetAccess(&flags, &location, buffer->address);
    if (result != CU_SUCCESS) return result;
    buffer->access[i] = (uint8_t)flags;
  }
  return buffer->file >= 0 ? icecore_guest_gpu_fill_from_file(buffer) : CU_SUCCESS;
}

int icecore_guest_gpu_allocate(const struct icecore_guest_gpu_options* options, size_t size_bytes,
                               unsigned long long* address) {
  buffer_t buffer;
  cu_result result = address != NULL ? describe(options, size_bytes, &buffer) : CU_INVALID_VALUE;
  if (result != CU_SUCCESS) return result;
  icecore_guest_gpu_enter();
  pthread_mutex_lock(&list->mutex);
  result = make_list() ? make_memory(&buffer) : CU_OPERATING_SYSTEM;
  pthread_mutex_unlock(&list->mutex);
  icecore_guest_gpu_leave();
  if (result == CU_SUCCESS)
    *address = buffer.address;
  else if (buffer.file >= 0)
    close(buffer.file);
  return result;
}

int icecore_guest_gpu_register(const struct icecore_guest_gpu_options* options,
                               unsigned long long address, size_t size_bytes,
                               unsigned long long handle) {
  buffer_t buffer;
  cu_result result =
      address != 0 && handle != 0 ? describe(options, size_bytes, &buffer) : CU_INVALID_VALUE;
  if (result != CU_SUCCESS) return result;
  buffer.address = address;
  buffer.handle = handle;
  buffer.size_bytes = size_bytes;
  buffer.is_registered = 1;
  icecore_guest_gpu_enter();
  pthread_mutex_lock(&list->mutex);
  result = make_list() ? CU_SUCCESS : CU_OPERATING_SYSTEM;
  if (result == CU_SUCCESS && find(address) != NULL) result = CU_INVALID_VALUE;
  if (result == CU_SUCCESS) result = look_at_memory(&buffer);
  if (result == CU_SUCCESS) result = enlist(&buffer);
  pthread_mutex_unlock(&list->mutex);
  icecore_guest_gpu_leave();
  if (result != CU_SUCCESS && buffer.file >= 0) close(buffer.file);
  return result;
}

static cu_result forget(buffer_t* buffer, unsigned long long* handle) {
  cu_result result = CU_SUCCESS;
  if (buffer->is_registered) {
    if (handle == NULL) return CU_INVALID_VALUE;
    *handle = buffer->handle; /* 0 when it is lost */
  } else {
    if (buffer->handle != 0) result = icecore_guest_gpu_give_memory_back(buffer);
    if (result == CU_SUCCESS)
      result = icecore_guest_driver()->MemAddressFree(buffer->address, buffer->size_bytes);
    if (result != CU_SUCCESS) return result;
  }
  if (buffer->file >= 0) close(buffer->file);
  icecore_guest_gpu_free_carrier(buffer);
  memset(buffer, 0, sizeof *buffer);
  return result;
}

int icecore_guest_gpu_forget(unsigned long long address, unsigned long long* handle) {
  icecore_guest_gpu_enter();
  pthread_mutex_lock(&list->mutex);
  buffer_t* const buffer = find(address);
  const cu_result result = buffer != NULL ? forget(buffer, handle) : CU_INVALID_VALUE;
  pthread_mutex_unlock(&list->mutex);
  icecore_guest_gpu_leave();
  return result;
}

int icecore_guest_gpu_status(unsigned long long address) {
  pthread_mutex_lock(&list->mutex);
  const buffer_t* const buffer = find(address);
  const cu_result result = buffer != NULL ? buffer->result : CU_INVALID_VALUE;
  pthread_mutex_unlock(&list->mutex);
  return result;
}

uint64_t icecore_guest_gpu_losses(unsigned long long address) {
  pthread_mutex_lock(&list->mutex);
  const buffer_t* const buffer = find(address);
  const uint64_t losses = buffer != NULL ? buffer->losses : 0;
  pthread_mutex_unlock(&list->mutex);
  return losses;
}

void icecore_guest_gpu_get_statistics(struct icecore_guest_gpu_statistics* to) {
  const size_t size = to->struct_size < sizeof *to ? to->struct_size : sizeof *to;
  pthread_mutex_lock(&list->mutex);
  struct icecore_guest_gpu_statistics now = list->statistics;
  pthread_mutex_unlock(&list->mutex);
  now.struct_size = to->struct_size;
  memcpy(to, &now, size);
}

/* ---- for torch ------------------------------------------------------------------------------- */

static void* allocate_for_torch(ptrdiff_t size, int device,
                                enum icecore_guest_gpu_contents contents) {
  const struct icecore_guest_gpu_options options = {
      .struct_size = sizeof options, .device = device, .contents = contents};
  unsigned long long address = 0;
  if (size <= 0 || icecore_guest_gpu_allocate(&options, (size_t)size, &address) != CU_SUCCESS)
    return NULL;
  return (void*)(uintptr_t)address;
}

void* icecore_guest_gpu_torch_keep(ptrdiff_t size, int device, void* stream) {
  (void)stream;
  return allocate_for_torch(size, device, ICECORE_GUEST_GPU_KEEP);
}

void* icecore_guest_gpu_torch_drop(ptrdiff_t size, int device, void* stream) {
  (void)stream;
  return allocate_for_torch(size, device, ICECORE_GUEST_GPU_DROP);
}

void icecore_guest_gpu_torch_free(void* memory, ptrdiff_t size, int device, void* stream) {
  (void)size, (void)device, (void)stream;
  icecore_guest_gpu_forget((unsigned long long)(uintptr_t)memory, NULL);
}
