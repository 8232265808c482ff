/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside libicecore_guest: buffers in GPUs. */
#ifndef ICECORE_GUEST_GPU_H
#define ICECORE_GUEST_GPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "gpu_driver.h"
#include "icecore/guest.h"

/* ---- guest.c */

/* NULL when the library could not start. */
struct icecore_area* icecore_guest_start(void);

/* ---- gpu.c */

enum { ICECORE_GPU_MAX_DEVICES = 16 };

struct gpu_list {
  pthread_mutex_t mutex;              /* of what follows */
  struct icecore_gpu_buffer* buffers; /* ICECORE_GPU_MAX_BUFFERS, or NULL before the first */
  struct icecore_guest_gpu_statistics statistics;
};
extern struct gpu_list icecore_guest_gpu_list;

/* In a child made by fork(), which has no GPUs. */
void icecore_guest_gpu_forget_all(void);

/* ---- gpu_gate.c: whoever uses buffers is between enter() and leave() */

/* False, and open, when somebody stays inside. */
bool icecore_guest_gpu_close_gate(void);
void icecore_guest_gpu_open_gate(void);
void icecore_guest_gpu_forget_gate(void);

/* ---- gpu_memory.c */

/* The primary one, also where the program uses one of its own: it reaches all mapped memory. */
cu_result icecore_guest_gpu_context_of(int device, cu_object* context);
void icecore_guest_gpu_forget_contexts(void);

/* Memory at a buffer's addresses; they are reserved again if the driver has forgotten them. */
cu_result icecore_guest_gpu_take_memory(struct icecore_gpu_buffer* buffer);
cu_result icecore_guest_gpu_give_memory_back(struct icecore_gpu_buffer* buffer);

/* From `offset` on. */
cu_result icecore_guest_gpu_zero(const struct icecore_gpu_buffer* buffer, size_t offset);

/* ---- gpu_snapshot.c */

/* Before a snapshot, when all callbacks have returned.  False: somebody uses them still, or the
 * driver fails; then they are all there. */
bool icecore_guest_gpu_put_away(void);
/* After it, before the callbacks. */
void icecore_guest_gpu_bring_back(void);

/* What is in its file, with the digest. */
cu_result icecore_guest_gpu_fill_from_file(struct icecore_gpu_buffer* buffer);
void icecore_guest_gpu_free_carrier(struct icecore_gpu_buffer* buffer);

/* ---- gpu_copy.c */

/* Digests are of pieces of this size, each by itself, and of all those together. */
enum { ICECORE_GPU_PIECE_BYTES = 4 << 20 };

/* A part of a buffer on its way. */
struct gpu_piece {
  const struct icecore_gpu_buffer* buffer;
  uint64_t offset;
  size_t size;
  uint64_t digest[2]; /* of what passed */
};

enum gpu_direction {
  GPU_DIGEST,    /* out of the GPU, and nowhere */
  GPU_TO_MEMORY, /* and into the buffer's carrier */
  GPU_FROM_MEMORY,
  GPU_FROM_FILE
};

struct gpu_times {
  uint64_t device_ns, digest_ns, memory_ns, file_ns; /* sums over all threads */
};

/* On a thread of its own with this context: those of the program keep theirs. */
cu_result icecore_guest_gpu_in_context(cu_object context, cu_result (*work)(void* user),
                                       void* user);

/* All pieces are of one device.  Through a ring of pinned memory, on several threads, so that
 * copying, digesting and reading or writing go on at the same time.  The first error, or 0. */
cu_result icecore_guest_gpu_move(cu_object context, struct gpu_piece* pieces, size_t count,
                                 enum gpu_direction direction, struct gpu_times* times);

/* Of a buffer, out of those of its pieces in order. */
void icecore_guest_gpu_fold(const struct gpu_piece* pieces, size_t count, uint64_t digest[2]);

uint64_t icecore_guest_now_ns(void);

#endif
