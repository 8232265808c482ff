/* SPDX-License-Identifier: Apache-2.0
 *
 * Buffers before a snapshot and after it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "gpu.h"

typedef struct icecore_gpu_buffer buffer_t;

static struct gpu_list* const list = &icecore_guest_gpu_list;

/* ---- bytes ------------------------------------------------------------------------------ */

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
    if (list->buffers[i].address != 0 && list->buffers[i].device == device &&
        wanted(&list->buffers[i]))
      pieces += piece_count(&list->buffers[i]), ++count;
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
    buffer_t* const buffer = &list->buffers[i];
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
    result = icecore_guest_gpu_context_of(device, &context);
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

void icecore_guest_gpu_free_carrier(buffer_t* buffer) {
  if (buffer->carrier != 0) munmap((void*)(uintptr_t)buffer->carrier, buffer->contents_bytes);
  buffer->carrier = 0;
}

cu_result icecore_guest_gpu_fill_from_file(buffer_t* buffer) {
  struct gpu_times unused = {0, 0, 0, 0};
  cu_object context = NULL;
  cu_result result = icecore_guest_gpu_context_of(buffer->device, &context);
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

/* ---- before a snapshot ----------------------------------------------------------------------- */

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
    if (list->buffers[i].address != 0 && list->buffers[i].device == device &&
        wanted(&list->buffers[i]))
      return true;
  return false;
}

static cu_result copy_out(int device, struct gpu_times* times, uint64_t* bytes) {
  if (!any_of(device, is_present)) return CU_SUCCESS;
  cu_object context = NULL;
  cu_result result = icecore_guest_gpu_context_of(device, &context);
  if (result == CU_SUCCESS) result = icecore_guest_gpu_in_context(context, synchronize, NULL);
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS && result == CU_SUCCESS; ++i) {
    buffer_t* const buffer = &list->buffers[i];
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
  for (int device = 0; device < ICECORE_GPU_MAX_DEVICES; ++device) {
    const cu_result result = copy_out(device, times, bytes);
    if (result != CU_SUCCESS) return result;
  }
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i) {
    buffer_t* const buffer = &list->buffers[i];
    if (buffer->address == 0 || !is_present(buffer)) continue;
    const cu_result result = icecore_guest_gpu_give_memory_back(buffer);
    if (result != CU_SUCCESS) return result;
    buffer->state = ICECORE_GPU_AWAY;
  }
  return CU_SUCCESS;
}

bool icecore_guest_gpu_put_away(void) {
  if (__atomic_load_n(&list->buffers, __ATOMIC_ACQUIRE) == NULL) return true;
  if (!icecore_guest_gpu_close_gate()) return false;
  pthread_mutex_lock(&list->mutex);
  const uint64_t begin = icecore_guest_now_ns();
  struct gpu_times times = {0, 0, 0, 0};
  uint64_t bytes = 0;
  const cu_result result = put_all_away(&times, &bytes);
  list->statistics =
      (struct icecore_guest_gpu_statistics){.saved_bytes = bytes,
                                            .saved_ns = icecore_guest_now_ns() - begin,
                                            .device_ns = times.device_ns,
                                            .digest_ns = times.digest_ns,
                                            .memory_ns = times.memory_ns,
                                            .file_ns = times.file_ns};
  pthread_mutex_unlock(&list->mutex);
  if (result != CU_SUCCESS) icecore_guest_gpu_bring_back();
  return result == CU_SUCCESS;
}

/* ---- after it -------------------------------------------------------------------------------- */

static bool comes_from_memory(const buffer_t* buffer) {
  return buffer->state == ICECORE_GPU_AWAY && buffer->handle != 0 && has_carrier(buffer);
}
static bool comes_from_file(const buffer_t* buffer) {
  return buffer->state == ICECORE_GPU_AWAY && buffer->handle != 0 && !has_carrier(buffer) &&
         buffer->contents == ICECORE_GUEST_GPU_FILE;
}

static void lose(buffer_t* buffer, cu_result result) {
  if (buffer->handle != 0) icecore_guest_gpu_give_memory_back(buffer);
  buffer->state = ICECORE_GPU_LOST;
  buffer->result = result;
}

static cu_result verify(buffer_t* buffer, const uint64_t digest[2]) {
  if (memcmp(buffer->digest, digest, sizeof buffer->digest) != 0) lose(buffer, CU_UNKNOWN);
  return CU_SUCCESS; /* for the others */
}

static void lose_all(int device, choice wanted, cu_result result) {
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (list->buffers[i].address != 0 && list->buffers[i].device == device &&
        wanted(&list->buffers[i]))
      lose(&list->buffers[i], result);
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
    buffer_t* const buffer = &list->buffers[i];
    if (buffer->address == 0 || buffer->state != ICECORE_GPU_AWAY) continue;
    cu_result result = icecore_guest_gpu_take_memory(buffer);
    const bool zeros = buffer->contents == ICECORE_GUEST_GPU_DROP;
    if (result == CU_SUCCESS)
      result = icecore_guest_gpu_zero(buffer, zeros ? 0 : buffer->contents_bytes);
    if (result != CU_SUCCESS) lose(buffer, result);
    buffer->losses += zeros ? 1 : 0;
  }
}

static void settle(buffer_t* buffer) {
  if (buffer->state == ICECORE_GPU_AWAY) buffer->state = ICECORE_GPU_PRESENT;
  const bool changed_file = has_carrier(buffer) && buffer->contents == ICECORE_GUEST_GPU_FILE;
  icecore_guest_gpu_free_carrier(buffer);
  /* It is not the file's digest any more, and nothing to compare with next time. */
  if (changed_file) buffer->contents = ICECORE_GUEST_GPU_KEEP;
}

void icecore_guest_gpu_bring_back(void) {
  if (__atomic_load_n(&list->buffers, __ATOMIC_ACQUIRE) == NULL) return;
  pthread_mutex_lock(&list->mutex);
  const uint64_t begin = icecore_guest_now_ns();
  struct gpu_times times = {0, 0, 0, 0};
  uint64_t bytes = 0;
  take_all_memory();
  for (int device = 0; device < ICECORE_GPU_MAX_DEVICES; ++device) copy_in(device, &times, &bytes);
  for (size_t i = 0; i < ICECORE_GPU_MAX_BUFFERS; ++i)
    if (list->buffers[i].address != 0) settle(&list->buffers[i]);
  list->statistics.restored_bytes = bytes;
  list->statistics.restored_ns = icecore_guest_now_ns() - begin;
  list->statistics.device_ns += times.device_ns;
  list->statistics.digest_ns += times.digest_ns;
  list->statistics.memory_ns += times.memory_ns;
  list->statistics.file_ns += times.file_ns;
  pthread_mutex_unlock(&list->mutex);
  icecore_guest_gpu_open_gate();
}
