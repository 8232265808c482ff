/* SPDX-License-Identifier: Apache-2.0
 *
 * Each thread has two slots of the ring and a stream: while the device works on one slot, the
 * thread works on the other. */
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "gpu.h"

enum { kSlots = 2, kMaxThreads = 4 };

struct move {
  const struct cu_driver* driver;
  cu_object context;
  struct gpu_piece* pieces;
  size_t count;
  enum gpu_direction direction;
  char* ring;
  size_t next;            /* atomic */
  int result;             /* atomic: the first error */
  struct gpu_times times; /* atomic */
};

struct slot {
  char* memory;
  cu_object event;
  struct gpu_piece* piece; /* on its way through the device, or NULL */
};

struct worker {
  struct move* move;
  pthread_t thread;
  char* ring;
  bool started;
};

uint64_t icecore_guest_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Adds the time since *since, and begins anew. */
static void lap(uint64_t* total, uint64_t* since) {
  const uint64_t now = icecore_guest_now_ns();
  __atomic_fetch_add(total, now - *since, __ATOMIC_RELAXED);
  *since = now;
}

static void fail(struct move* move, cu_result result) {
  int none = CU_SUCCESS;
  __atomic_compare_exchange_n(&move->result, &none, result, false, __ATOMIC_RELAXED,
                              __ATOMIC_RELAXED);
}

/* The next piece, or NULL when there is none or something has failed. */
static struct gpu_piece* take(struct move* move) {
  if (__atomic_load_n(&move->result, __ATOMIC_RELAXED) != CU_SUCCESS) return NULL;
  const size_t index = __atomic_fetch_add(&move->next, 1, __ATOMIC_RELAXED);
  return index < move->count ? &move->pieces[index] : NULL;
}

static void digest(struct gpu_piece* piece, const char* bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes, piece->size);
  piece->digest[0] = hash.low64;
  piece->digest[1] = hash.high64;
}

static char* place_in_memory(const struct gpu_piece* piece) {
  return (char*)(uintptr_t)piece->buffer->carrier + piece->offset;
}

static cu_result read_file(const struct gpu_piece* piece, char* to) {
  size_t done = 0;
  while (done < piece->size) {
    const ssize_t count = pread(piece->buffer->file, to + done, piece->size - done,
                                (off_t)(piece->buffer->file_offset + piece->offset + done));
    if (count == 0 || (count < 0 && errno != EINTR)) return CU_FILE_NOT_FOUND;
    if (count > 0) done += (size_t)count;
  }
  return CU_SUCCESS;
}

/* What a thread does with bytes that have come out of the device. */
static void accept(struct move* move, struct slot* slot) {
  uint64_t since = icecore_guest_now_ns();
  digest(slot->piece, slot->memory);
  lap(&move->times.digest_ns, &since);
  if (move->direction != GPU_TO_MEMORY) return;
  memcpy(place_in_memory(slot->piece), slot->memory, slot->piece->size);
  lap(&move->times.memory_ns, &since);
}

/* And with those that shall go there. */
static cu_result provide(struct move* move, struct slot* slot) {
  cu_result result = CU_SUCCESS;
  uint64_t since = icecore_guest_now_ns();
  if (move->direction == GPU_FROM_MEMORY) {
    memcpy(slot->memory, place_in_memory(slot->piece), slot->piece->size);
    lap(&move->times.memory_ns, &since);
  } else {
    result = read_file(slot->piece, slot->memory);
    lap(&move->times.file_ns, &since);
  }
  digest(slot->piece, slot->memory);
  lap(&move->times.digest_ns, &since);
  return result;
}

/* Until the device is done with the slot. */
static cu_result await(struct move* move, struct slot* slot) {
  if (slot->piece == NULL) return CU_SUCCESS;
  uint64_t since = icecore_guest_now_ns();
  const cu_result result = move->driver->EventSynchronize(slot->event);
  lap(&move->times.device_ns, &since);
  if (result == CU_SUCCESS && move->direction <= GPU_TO_MEMORY) accept(move, slot);
  slot->piece = NULL;
  return result;
}

static cu_result send_off(struct move* move, struct slot* slot, cu_object stream) {
  const struct cu_driver* const cu = move->driver;
  const struct gpu_piece* const piece = slot->piece;
  const cu_address there = piece->buffer->address + piece->offset;
  cu_result result = CU_SUCCESS;
  if (move->direction <= GPU_TO_MEMORY) {
    result = cu->MemcpyDtoHAsync(slot->memory, there, piece->size, stream);
  } else {
    result = provide(move, slot);
    if (result == CU_SUCCESS)
      result = cu->MemcpyHtoDAsync(there, slot->memory, piece->size, stream);
  }
  return result == CU_SUCCESS ? cu->EventRecord(slot->event, stream) : result;
}

static cu_result work(struct move* move, struct slot* slots, cu_object stream) {
  for (int at = 0;; at = (at + 1) % kSlots) {
    struct slot* const slot = &slots[at];
    cu_result result = await(move, slot);
    slot->piece = result == CU_SUCCESS ? take(move) : NULL;
    if (slot->piece == NULL) return result;
    result = send_off(move, slot, stream);
    if (result == CU_SUCCESS) continue;
    slot->piece = NULL;
    return result;
  }
}

static void* run(void* argument) {
  struct worker* const worker = argument;
  struct move* const move = worker->move;
  const struct cu_driver* const cu = move->driver;
  struct slot slots[kSlots];
  memset(slots, 0, sizeof slots);
  cu_object stream = NULL;
  cu_result result = cu->CtxSetCurrent(move->context);
  if (result == CU_SUCCESS) result = cu->StreamCreate(&stream, CU_NON_BLOCKING);
  for (int i = 0; i < kSlots && result == CU_SUCCESS; ++i) {
    slots[i].memory = worker->ring + (size_t)i * ICECORE_GPU_PIECE_BYTES;
    result = cu->EventCreate(&slots[i].event, CU_BLOCKING_NO_TIMING);
  }
  if (result == CU_SUCCESS) result = work(move, slots, stream);
  for (int i = 0; i < kSlots; ++i) {
    const cu_result last = await(move, &slots[i]);
    if (result == CU_SUCCESS) result = last;
  }
  /* Nothing may write into the ring when it is gone. */
  if (stream != NULL) {
    const cu_result last = cu->StreamSynchronize(stream);
    if (result == CU_SUCCESS) result = last;
  }
  for (int i = 0; i < kSlots; ++i)
    if (slots[i].event != NULL) cu->EventDestroy(slots[i].event);
  if (stream != NULL) cu->StreamDestroy(stream);
  if (result != CU_SUCCESS) fail(move, result);
  return NULL;
}

static void run_all(struct move* move, struct worker* workers, size_t count) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  size_t started = 0;
  for (size_t i = 0; i < count; ++i) {
    workers[i].move = move;
    workers[i].ring = move->ring + i * kSlots * (size_t)ICECORE_GPU_PIECE_BYTES;
    workers[i].started = pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0;
    started += workers[i].started ? 1 : 0;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (started == 0) fail(move, CU_OPERATING_SYSTEM); /* fewer are slower, not wrong */
  for (size_t i = 0; i < count; ++i)
    if (workers[i].started) pthread_join(workers[i].thread, NULL);
}

static size_t thread_count(size_t pieces) {
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  size_t count = cpus > 1 ? (size_t)cpus : 2; /* one waits for the device while the other works */
  if (count > kMaxThreads) count = kMaxThreads;
  return count < pieces ? count : pieces;
}

/* Only while bytes move: it must not be in the image. */
static char* make_ring(const struct cu_driver* cu, size_t size, cu_result* result) {
  char* const ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *result = CU_OPERATING_SYSTEM;
  if (ring == MAP_FAILED) return NULL;
  *result = cu->MemHostRegister(ring, size, CU_PORTABLE);
  if (*result == CU_SUCCESS) return ring;
  munmap(ring, size);
  return NULL;
}

static cu_result move_all(void* argument) {
  struct move* const move = argument;
  const size_t threads = thread_count(move->count);
  const size_t size = threads * kSlots * (size_t)ICECORE_GPU_PIECE_BYTES;
  cu_result result = CU_SUCCESS;
  move->ring = make_ring(move->driver, size, &result);
  if (move->ring == NULL) return result;
  struct worker workers[kMaxThreads];
  run_all(move, workers, threads);
  result = move->driver->MemHostUnregister(move->ring);
  munmap(move->ring, size);
  return move->result != CU_SUCCESS ? move->result : result;
}

struct errand {
  cu_object context;
  cu_result (*work)(void* user);
  void* user;
  cu_result result;
};

static void* run_errand(void* argument) {
  struct errand* const errand = argument;
  errand->result = icecore_guest_driver()->CtxSetCurrent(errand->context);
  if (errand->result == CU_SUCCESS) errand->result = errand->work(errand->user);
  return NULL;
}

cu_result icecore_guest_gpu_in_context(cu_object context, cu_result (*work)(void* user),
                                       void* user) {
  struct errand errand = {context, work, user, CU_SUCCESS};
  pthread_t thread;
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const int error = pthread_create(&thread, NULL, run_errand, &errand);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error != 0) return CU_OPERATING_SYSTEM;
  pthread_join(thread, NULL);
  return errand.result;
}

cu_result icecore_guest_gpu_move(cu_object context, struct gpu_piece* pieces, size_t count,
                                 enum gpu_direction direction, struct gpu_times* times) {
  if (count == 0) return CU_SUCCESS;
  struct move move = {.driver = icecore_guest_driver(),
                      .context = context,
                      .pieces = pieces,
                      .count = count,
                      .direction = direction};
  const cu_result result = icecore_guest_gpu_in_context(context, move_all, &move);
  times->device_ns += move.times.device_ns;
  times->digest_ns += move.times.digest_ns;
  times->memory_ns += move.times.memory_ns;
  times->file_ns += move.times.file_ns;
  return result;
}

void icecore_guest_gpu_fold(const struct gpu_piece* pieces, size_t count,
                            uint64_t digest_of_all[2]) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (size_t i = 0; i < count; ++i)
    XXH3_128bits_update(&state, pieces[i].digest, sizeof pieces[i].digest);
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  digest_of_all[0] = hash.low64;
  digest_of_all[1] = hash.high64;
}
