/* SPDX-License-Identifier: Apache-2.0
 *
 * Where libicecore_guest, inside a program, and icecore, outside, meet: one mapping of the program,
 * private anonymous memory of exactly ICECORE_AREA_BYTES with MADV_DONTDUMP between two pages
 * without access, which begins with this.  Nothing else marks it, so that it is found in any
 * process and any image; no kernel is needed that can name memory.
 *
 * The bell and the answer are eventfds of the program.  Whoever takes a snapshot rings PREPARE,
 * waits for the answer, and rings GO_ON when the program runs again; whoever restores rings
 * RESTORED before it runs.  What is rung before the program hears it adds up, and it hears of what
 * has ended before what begins: so whoever gives up takes a PREPARE back that was not heard. */
#ifndef ICECORE_GUEST_AREA_H
#define ICECORE_GUEST_AREA_H

#include <stdint.h>

#define ICECORE_AREA_BYTES (17u * 4096u)
#define ICECORE_AREA_MAGIC 0x5453455547454349ull /* "ICEGUEST" */
#define ICECORE_AREA_VERSION 1u
#define ICECORE_AREA_INVOCATION 4096u /* offset */
#define ICECORE_AREA_INVOCATION_BYTES (15u * 4096u)

enum {
  ICECORE_BELL_PREPARE = 1,
  ICECORE_BELL_GO_ON = 0x100,
  ICECORE_BELL_RESTORED = 0x10000,
  ICECORE_ANSWER_READY = 1,
  ICECORE_ANSWER_REFUSED = 0x100
};

struct icecore_area {
  uint64_t magic;
  uint32_t version;
  int32_t bell;   /* descriptor */
  int32_t answer; /* descriptor */
  uint32_t invocation_bytes;
  uint64_t generation;  /* 0 from the start, one more at each restore */
  uint8_t id[16];       /* random, new at each restore */
  uint64_t gpu_buffers; /* address of an array of icecore_gpu_buffer, or 0 */
  uint32_t gpu_buffer_count;
  uint32_t unused;
  /* At ICECORE_AREA_INVOCATION: variables as "NAME=VALUE", an empty string, arguments; each with a
   * NUL. */
};

enum { ICECORE_GPU_PRESENT = 0, ICECORE_GPU_AWAY = 1, ICECORE_GPU_LOST = 2 };

#define ICECORE_GPU_MAX_BUFFERS 4096u

/* A buffer in a GPU that the library takes care of. */
struct icecore_gpu_buffer {
  uint64_t address; /* 0: this entry is free */
  uint64_t size_bytes;
  uint64_t handle; /* of cuMemCreate */
  int32_t device;
  uint32_t contents; /* enum icecore_guest_gpu_contents */
  uint32_t state;
  int32_t result; /* why it is lost */
  uint64_t losses;
  int32_t file; /* descriptor, or -1 */
  uint32_t is_registered;
  uint64_t file_offset;
  int64_t file_time_s; /* of its last change */
  int64_t file_time_ns;
  uint64_t digest[2];      /* of `contents_bytes`, while it is away; and always of a file's */
  uint64_t contents_bytes; /* what was asked for: the rest are zeros */
  uint64_t carrier;   /* address of the contents in memory, while it is away and they are kept */
  uint8_t access[16]; /* of each device: CU_MEM_ACCESS_FLAGS_… */
  uint8_t properties[32]; /* CUmemAllocationProp */
};

#endif
