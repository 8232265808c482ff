/* SPDX-License-Identifier: Apache-2.0
 *
 * Where libicecore_guest, inside a program, and icecore, outside, meet: one mapping of the program,
 * private anonymous memory of exactly ICECORE_AREA_BYTES with MADV_DONTDUMP between two pages
 * without access, which begins with this.  Nothing else marks it, so that it is found in any
 * process and any image; no kernel is needed that can name memory.
 *
 * The bell and the answer are eventfds of the program.  Whoever takes a snapshot rings PREPARE,
 * waits for the answer, and rings GO_ON when the program runs again; whoever restores rings
 * RESTORED before it runs. */
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
  uint64_t generation; /* 0 from the start, one more at each restore */
  uint8_t id[16];      /* random, new at each restore */
  /* At ICECORE_AREA_INVOCATION: variables as "NAME=VALUE", an empty string, arguments; each with a
   * NUL. */
};

#endif
