/* SPDX-License-Identifier: Apache-2.0
 *
 * A buffer keeps its reservation of addresses from the first to the last; what comes and goes is
 * the memory behind it: cuMemUnmap, cuMemRelease; cuMemCreate, cuMemMap, cuMemSetAccess.  So the
 * driver, which restores reservations, finds nothing to save there, and no address is ever up for
 * grabs. */
#define _GNU_SOURCE
#include "gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "icecore/guest.h"

enum { kMaxDevices = 16, kPatienceForUsersS = 5 };

typedef struct icecore_gpu_buffer buffer_t;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* of `users` and `away` */
static pthread_cond_t gate_changed;
static pthread_once_t gate_once = PTHREAD_ONCE_INIT;
static unsigned users;
static bool away;

static pthread_mutex_t list = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static buffer_t* buffers;
static cu_object contexts[kMaxDevices];
static struct icecore_guest_gpu_statistics statistics;

_Static_assert(sizeof(struct cu_properties) == sizeof(((buffer_t*)0)->properties), "");

/* ---- the gate
 * --------------------------------------------------------------------------------------- */

static void set_up_gate(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&gate_changed, &attributes);
  pthread_condattr_destroy(&attributes);
}

void icecore_guest_gpu_enter(void) {
  pthread_once(&gate_once, set_up_gate);
  pthread_mutex_lock(&gate);
  while (away) pthread_cond_wait(&gate_changed, &gate);
  ++users;
  pthread_mutex_unlock(&gate);
}

void icecore_guest_gpu_leave(void) {
  pthread_mutex_lock(&gate);
  if (users > 0 && --users == 0) pthread_cond_broadcast(&gate_changed);
  pthread_mutex_unlock(&gate);
}

static void open_gate(void) {
  pthread_mutex_lock(&gate);
  away = false;
  pthread_cond_broadcast(&gate_changed);
  pthread_mutex_unlock(&gate);
}

/* False, and open, when somebody stays inside. */
static bool close_gate(void) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += kPatienceForUsersS;
  pthread_once(&gate_once, set_up_gate);
  pthread_mutex_lock(&gate);
  away = true;
  int error = 0;
  while (users > 0 && error == 0) error = pthread_cond_timedwait(&gate_changed, &gate, &until);
  const bool empty = users == 0;
  pthread_mutex_unlock(&gate);
  if (!empty) open_gate();
  return empty;
}

/* ---- memory behind addresses
 * ------------------------------------------------------------------------- */

static struct cu_properties properties_of(const buffer_t* buffer) {
  struct cu_properties properties;
  memcpy(&properties, buffer->properties, sizeof properties);
  return properties;
}

/* 0 also where the program uses a context of its own: the primary one reaches all mapped memory. */
static cu_result context_of(int device, cu_object* context) {
  if (device < 0 || device >= kMaxDevices) return CU_INVALID_VALUE;
  cu_result result = CU_SUCCESS;
  if (contexts[device] == NULL)
    result = icecore_guest_driver()->DevicePrimaryCtxRetain(&contexts[device], device);
  *context = contexts[device];
  return result;
}

static cu_result give_access(const buffer_t* buffer) {
  struct cu_access access[kMaxDevices];
  size_t count = 0;
  for (int i = 0; i < kMaxDevices; ++i)
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

static cu_result take_memory(buffer_t* buffer) {
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

static cu_result give_memory_back(buffer_t* buffer) {
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

/* From `offset` on. */
static cu_result zero(const buffer_t* buffer, size_t offset) {
  if (offset == buffer->size_bytes) return CU_SUCCESS;
  cu_object context = NULL;
  const cu_result result = context_of(buffer->device, &context);
  if (result != CU_SUCCESS) return result;
  struct zeroing what = {buffer->address + offset, buffer->size_bytes - offset};
  return icecore_guest_gpu_in_context(context, zero_in_context, &what);
}

/* ---- bytes
 * --------------------------------------------------------------------------------------------- */

static size_t piece_count(const buffer_t* buffer) {
  return (size_t)((buffer->contents_bytes + ICECORE_GPU_PIECE_BYTES - 1) / ICECORE_GPU_PIECE_BYTES);
}

/* Writes piece_count() of them. */
static size_t cut(const buffer_t* buffer, struct gpu_piece* pieces) {
  const size_t count = piece_count(buffer);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t at = i * (uint64_t)ICECORE_GPU_PIECE_BYTES;
    const uint64_t left = buffer->contents_bytes - at;
    const bool is_last = left < ICECORE_GPU_PIECE_BYTES;
    pieces[i] = (struct gpu_piece){
        buffer, at, is_last ? (size_t)left : (size_t)ICECORE_GPU_PIECE_BYTES, {0, 0}};
  }
  return count;
}

/* Some buffers, in pieces that lie in the same order. */
struct batch {
  struct gpu_piece* pieces;
  size_t count;
  buffer_t** all;
  size_t buffer_count;
};

typedef bool (*choice)(const buffer_t* buffer);

/* False when there is no memory for it. */
static bool make_batch(struct batch* batch, int device, choice wanted) {
  memset(batch, 0, sizeof *batch);
  size_t pieces = 0, count = 0;
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (buffers[i].address != 0 && buffers[i].device == device && wanted(&buffers[i]))
      pieces += piece_count(&buffers[i]), ++count;
  if (count == 0) return true;
  batch->pieces = calloc(pieces, sizeof *batch->pieces);
  batch->all = calloc(count, sizeof *batch->all);
  if (batch->pieces == NULL || batch->all == NULL) {
    free(batch->pieces);
    free(batch->all);
    memset(batch, 0, sizeof *batch);
    return false;
  }
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i) {
    buffer_t* const buffer = &buffers[i];
    if (buffer->address == 0 || buffer->device != device || !wanted(buffer)) continue;
    batch->all[batch->buffer_count++] = buffer;
    batch->count += cut(buffer, batch->pieces + batch->count);
  }
  return true;
}

static void free_batch(struct batch* batch) {
  free(batch->pieces);
  free(batch->all);
}

typedef cu_result (*digest_use)(buffer_t* buffer, const uint64_t digest[2]);

/* Moves the bytes of all buffers of a device that are `wanted`, and tells of their digests. */
static cu_result move(int device, choice wanted, enum gpu_direction direction, digest_use use,
                      struct gpu_times* times, uint64_t* bytes) {
  struct batch batch;
  if (!make_batch(&batch, device, wanted)) return CU_OPERATING_SYSTEM;
  cu_result result = CU_SUCCESS;
  if (batch.count != 0) {
    cu_object context = NULL;
    result = context_of(device, &context);
    if (result == CU_SUCCESS)
      result = icecore_guest_gpu_move(context, batch.pieces, batch.count, direction, times);
  }
  const struct gpu_piece* pieces = batch.pieces;
  for (size_t i = 0; i < batch.buffer_count && result == CU_SUCCESS; ++i) {
    uint64_t digest[2];
    const size_t count = piece_count(batch.all[i]);
    icecore_guest_gpu_fold(pieces, count, digest);
    pieces += count;
    *bytes += batch.all[i]->contents_bytes;
    result = use(batch.all[i], digest);
  }
  free_batch(&batch);
  return result;
}

static cu_result set_digest(buffer_t* buffer, const uint64_t digest[2]) {
  memcpy(buffer->digest, digest, sizeof buffer->digest);
  return CU_SUCCESS;
}

static bool make_carrier(buffer_t* buffer) {
  void* const memory = mmap(NULL, buffer->contents_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  madvise(memory, buffer->contents_bytes, MADV_HUGEPAGE); /* faster where there are some */
  buffer->carrier = (uint64_t)(uintptr_t)memory;
  return true;
}

static void free_carrier(buffer_t* buffer) {
  if (buffer->carrier != 0) munmap((void*)(uintptr_t)buffer->carrier, buffer->contents_bytes);
  buffer->carrier = 0;
}

/* ---- before a snapshot
 * ------------------------------------------------------------------------------- */

static bool is_present(const buffer_t* buffer) { return buffer->state == ICECORE_GPU_PRESENT; }
static bool is_present_file(const buffer_t* buffer) {
  return is_present(buffer) && buffer->contents == ICECORE_GUEST_GPU_FILE;
}
static bool has_carrier(const buffer_t* buffer) { return buffer->carrier != 0; }

/* The time of the last change, which a restore looks at too. */
static bool file_is_unchanged(const buffer_t* buffer) {
  struct stat status;
  return fstat(buffer->file, &status) == 0 && status.st_mtim.tv_sec == buffer->file_time_s &&
         status.st_mtim.tv_nsec == buffer->file_time_ns;
}

/* One whose bytes are not those of the file any more is kept. */
static cu_result keep_if_changed(buffer_t* buffer, const uint64_t digest[2]) {
  if (memcmp(buffer->digest, digest, sizeof buffer->digest) == 0 && file_is_unchanged(buffer))
    return CU_SUCCESS;
  return make_carrier(buffer) ? CU_SUCCESS : CU_OPERATING_SYSTEM;
}

static bool is_changed_file(const buffer_t* buffer) {
  return is_present_file(buffer) && has_carrier(buffer);
}

static cu_result synchronize(void* unused) {
  (void)unused;
  return icecore_guest_driver()->CtxSynchronize();
}

static bool any_of(int device, choice wanted) {
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (buffers[i].address != 0 && buffers[i].device == device && wanted(&buffers[i])) return true;
  return false;
}

static cu_result copy_out(int device, struct gpu_times* times, uint64_t* bytes) {
  if (!any_of(device, is_present)) return CU_SUCCESS;
  cu_object context = NULL;
  cu_result result = context_of(device, &context);
  if (result == CU_SUCCESS) result = icecore_guest_gpu_in_context(context, synchronize, NULL);
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS && result == CU_SUCCESS; ++i) {
    buffer_t* const buffer = &buffers[i];
    if (buffer->address != 0 && buffer->device == device && is_present(buffer) &&
        buffer->contents == ICECORE_GUEST_GPU_KEEP && !make_carrier(buffer))
      result = CU_OPERATING_SYSTEM;
  }
  if (result == CU_SUCCESS)
    result = move(device, has_carrier, GPU_TO_MEMORY, set_digest, times, bytes);
  uint64_t digested = 0;
  if (result == CU_SUCCESS)
    result = move(device, is_present_file, GPU_DIGEST, keep_if_changed, times, &digested);
  if (result == CU_SUCCESS)
    result = move(device, is_changed_file, GPU_TO_MEMORY, set_digest, times, bytes);
  return result;
}

static cu_result put_all_away(struct gpu_times* times, uint64_t* bytes) {
  for (int device = 0; device < kMaxDevices; ++device) {
    const cu_result result = copy_out(device, times, bytes);
    if (result != CU_SUCCESS) return result;
  }
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i) {
    buffer_t* const buffer = &buffers[i];
    if (buffer->address == 0 || !is_present(buffer)) continue;
    const cu_result result = give_memory_back(buffer);
    if (result != CU_SUCCESS) return result;
    buffer->state = ICECORE_GPU_AWAY;
  }
  return CU_SUCCESS;
}

bool icecore_guest_gpu_put_away(void) {
  if (__atomic_load_n(&buffers, __ATOMIC_ACQUIRE) == NULL) return true;
  if (!close_gate()) return false;
  pthread_mutex_lock(&list);
  const uint64_t begin = icecore_guest_now_ns();
  struct gpu_times times = {0, 0, 0, 0};
  uint64_t bytes = 0;
  const cu_result result = put_all_away(&times, &bytes);
  statistics = (struct icecore_guest_gpu_statistics){.saved_bytes = bytes,
                                                     .saved_ns = icecore_guest_now_ns() - begin,
                                                     .device_ns = times.device_ns,
                                                     .digest_ns = times.digest_ns,
                                                     .memory_ns = times.memory_ns,
                                                     .file_ns = times.file_ns};
  pthread_mutex_unlock(&list);
  if (result != CU_SUCCESS) icecore_guest_gpu_bring_back();
  return result == CU_SUCCESS;
}

/* ---- after it
 * ---------------------------------------------------------------------------------------- */

static bool comes_from_memory(const buffer_t* buffer) {
  return buffer->state == ICECORE_GPU_AWAY && buffer->handle != 0 && has_carrier(buffer);
}
static bool comes_from_file(const buffer_t* buffer) {
  return buffer->state == ICECORE_GPU_AWAY && buffer->handle != 0 && !has_carrier(buffer) &&
         buffer->contents == ICECORE_GUEST_GPU_FILE;
}

static void lose(buffer_t* buffer, cu_result result) {
  if (buffer->handle != 0) give_memory_back(buffer);
  buffer->state = ICECORE_GPU_LOST;
  buffer->result = result;
}

static cu_result verify(buffer_t* buffer, const uint64_t digest[2]) {
  if (memcmp(buffer->digest, digest, sizeof buffer->digest) != 0) lose(buffer, CU_UNKNOWN);
  return CU_SUCCESS; /* for the others */
}

static void lose_all(int device, choice wanted, cu_result result) {
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (buffers[i].address != 0 && buffers[i].device == device && wanted(&buffers[i]))
      lose(&buffers[i], result);
}

static void copy_in(int device, struct gpu_times* times, uint64_t* bytes) {
  const struct {
    choice wanted;
    enum gpu_direction direction;
  } ways[] = {{comes_from_memory, GPU_FROM_MEMORY}, {comes_from_file, GPU_FROM_FILE}};
  for (int i = 0; i < 2; ++i) {
    const cu_result result = move(device, ways[i].wanted, ways[i].direction, verify, times, bytes);
    if (result != CU_SUCCESS) lose_all(device, ways[i].wanted, result);
  }
}

static void take_all_memory(void) {
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i) {
    buffer_t* const buffer = &buffers[i];
    if (buffer->address == 0 || buffer->state != ICECORE_GPU_AWAY) continue;
    cu_result result = take_memory(buffer);
    const bool zeros = buffer->contents == ICECORE_GUEST_GPU_DROP;
    if (result == CU_SUCCESS) result = zero(buffer, zeros ? 0 : buffer->contents_bytes);
    if (result != CU_SUCCESS) lose(buffer, result);
    buffer->losses += zeros ? 1 : 0;
  }
}

static void settle(buffer_t* buffer) {
  if (buffer->state == ICECORE_GPU_AWAY) buffer->state = ICECORE_GPU_PRESENT;
  const bool changed_file = has_carrier(buffer) && buffer->contents == ICECORE_GUEST_GPU_FILE;
  free_carrier(buffer);
  /* It is not the file's digest any more, and nothing to compare with next time. */
  if (changed_file) buffer->contents = ICECORE_GUEST_GPU_KEEP;
}

void icecore_guest_gpu_bring_back(void) {
  if (__atomic_load_n(&buffers, __ATOMIC_ACQUIRE) == NULL) return;
  pthread_mutex_lock(&list);
  const uint64_t begin = icecore_guest_now_ns();
  struct gpu_times times = {0, 0, 0, 0};
  uint64_t bytes = 0;
  take_all_memory();
  for (int device = 0; device < kMaxDevices; ++device) copy_in(device, &times, &bytes);
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (buffers[i].address != 0) settle(&buffers[i]);
  statistics.restored_bytes = bytes;
  statistics.restored_ns = icecore_guest_now_ns() - begin;
  statistics.device_ns += times.device_ns;
  statistics.digest_ns += times.digest_ns;
  statistics.memory_ns += times.memory_ns;
  statistics.file_ns += times.file_ns;
  pthread_mutex_unlock(&list);
  open_gate();
}

void icecore_guest_gpu_forget_all(void) {
  if (buffers != NULL) {
    for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i) {
      if (buffers[i].address == 0) continue;
      free_carrier(&buffers[i]);
      if (buffers[i].file >= 0) close(buffers[i].file);
    }
    munmap(buffers, sizeof(buffer_t) * ICECORE_GPU_MAX_BUFFERS);
  }
  buffers = NULL;
  users = 0;
  away = false;
  memset(contexts, 0, sizeof contexts);
  pthread_mutex_init(&list, NULL);
  pthread_mutex_init(&gate, NULL);
  set_up_gate();
}

/* ---- what programs call
 * ------------------------------------------------------------------------------ */

/* With `list` held, and the caller inside the gate. */
static bool make_list(void) {
  if (buffers != NULL) return true;
  struct icecore_area* const area = icecore_guest_start();
  if (area == NULL) return false;
  void* const memory = mmap(NULL, sizeof(buffer_t) * ICECORE_GPU_MAX_BUFFERS,
                            PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  area->gpu_buffer_count = ICECORE_GPU_MAX_BUFFERS;
  __atomic_store_n(&area->gpu_buffers, (uint64_t)(uintptr_t)memory, __ATOMIC_RELEASE);
  __atomic_store_n(&buffers, (buffer_t*)memory, __ATOMIC_RELEASE);
  return true;
}

static buffer_t* find(unsigned long long address) {
  if (buffers == NULL || address == 0) return NULL;
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (buffers[i].address == address) return &buffers[i];
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
      given.device >= kMaxDevices)
    return CU_INVALID_VALUE;
  buffer->device = given.device;
  buffer->contents = given.contents;
  buffer->contents_bytes = size;
  return open_file(&given, buffer);
}

static cu_result fill_from_file(buffer_t* buffer) {
  struct gpu_times unused = {0, 0, 0, 0};
  cu_object context = NULL;
  cu_result result = context_of(buffer->device, &context);
  const size_t count = piece_count(buffer);
  struct gpu_piece* const pieces = calloc(count, sizeof *pieces);
  if (pieces == NULL) return CU_OPERATING_SYSTEM;
  cut(buffer, pieces);
  if (result == CU_SUCCESS)
    result = icecore_guest_gpu_move(context, pieces, count, GPU_FROM_FILE, &unused);
  if (result == CU_SUCCESS) icecore_guest_gpu_fold(pieces, count, buffer->digest);
  free(pieces);
  return result;
}

/* Into a free entry. */
static cu_result enlist(const buffer_t* buffer) {
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (buffers[i].address == 0) {
      buffers[i] = *buffer;
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
  result = take_memory(buffer);
  if (result == CU_SUCCESS) {
    result = zero(buffer, 0);
    if (result == CU_SUCCESS && buffer->file >= 0) result = fill_from_file(buffer);
    if (result == CU_SUCCESS) result = enlist(buffer);
    if (result == CU_SUCCESS) return result;
    give_memory_back(buffer);
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
  for (int i = 0; i < devices && i < kMaxDevices; ++i) {
    const struct cu_location location = {CU_ON_DEVICE, i};
    unsigned long long flags = 0;
    result = cu->MemGetAccess(&flags, &location, buffer->address);
    if (result != CU_SUCCESS) return result;
    buffer->access[i] = (uint8_t)flags;
  }
  return buffer->file >= 0 ? fill_from_file(buffer) : CU_SUCCESS;
}

int icecore_guest_gpu_allocate(const struct icecore_guest_gpu_options* options, size_t size_bytes,
                               unsigned long long* address) {
  buffer_t buffer;
  cu_result result = address != NULL ? describe(options, size_bytes, &buffer) : CU_INVALID_VALUE;
  if (result != CU_SUCCESS) return result;
  icecore_guest_gpu_enter();
  pthread_mutex_lock(&list);
  result = make_list() ? make_memory(&buffer) : CU_OPERATING_SYSTEM;
  pthread_mutex_unlock(&list);
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
  pthread_mutex_lock(&list);
  result = make_list() ? CU_SUCCESS : CU_OPERATING_SYSTEM;
  if (result == CU_SUCCESS && find(address) != NULL) result = CU_INVALID_VALUE;
  if (result == CU_SUCCESS) result = look_at_memory(&buffer);
  if (result == CU_SUCCESS) result = enlist(&buffer);
  pthread_mutex_unlock(&list);
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
    if (buffer->handle != 0) result = give_memory_back(buffer);
    if (result == CU_SUCCESS)
      result = icecore_guest_driver()->MemAddressFree(buffer->address, buffer->size_bytes);
    if (result != CU_SUCCESS) return result;
  }
  if (buffer->file >= 0) close(buffer->file);
  free_carrier(buffer);
  memset(buffer, 0, sizeof *buffer);
  return result;
}

int icecore_guest_gpu_forget(unsigned long long address, unsigned long long* handle) {
  icecore_guest_gpu_enter();
  pthread_mutex_lock(&list);
  buffer_t* const buffer = find(address);
  const cu_result result = buffer != NULL ? forget(buffer, handle) : CU_INVALID_VALUE;
  pthread_mutex_unlock(&list);
  icecore_guest_gpu_leave();
  return result;
}

int icecore_guest_gpu_status(unsigned long long address) {
  pthread_mutex_lock(&list);
  const buffer_t* const buffer = find(address);
  const cu_result result = buffer != NULL ? buffer->result : CU_INVALID_VALUE;
  pthread_mutex_unlock(&list);
  return result;
}

uint64_t icecore_guest_gpu_losses(unsigned long long address) {
  pthread_mutex_lock(&list);
  const buffer_t* const buffer = find(address);
  const uint64_t losses = buffer != NULL ? buffer->losses : 0;
  pthread_mutex_unlock(&list);
  return losses;
}

void icecore_guest_gpu_get_statistics(struct icecore_guest_gpu_statistics* to) {
  const size_t size = to->struct_size < sizeof *to ? to->struct_size : sizeof *to;
  pthread_mutex_lock(&list);
  struct icecore_guest_gpu_statistics now = statistics;
  pthread_mutex_unlock(&list);
  now.struct_size = to->struct_size;
  memcpy(to, &now, size);
}

/* ---- for torch
 * --------------------------------------------------------------------------------------- */

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
