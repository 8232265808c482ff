/* SPDX-License-Identifier: Apache-2.0
 *
 * libicecore_guest: for a program that wants to know that it is snapshotted and restored.  It needs
 * no more than libc, and does nothing in a program that is never snapshotted.  A program that does
 * not use it is snapshotted all the same.
 *
 *  1. The first call of any function here starts the library: one mapping of 68 KiB, two eventfds,
 * and one thread with all signals blocked, on which the callbacks run.  A child made by fork()
 * starts again from nothing.
 *  2. All functions may be called from any thread, but not from a signal handler.
 *  3. Strings that are returned are valid until the next restore.
 */
#ifndef ICECORE_GUEST_H
#define ICECORE_GUEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ICECORE_GUEST_API __attribute__((visibility("default")))

/* What became of a snapshot, as seen by whoever runs on. */
enum icecore_guest_outcome {
  ICECORE_GUEST_GONE_ON =
      0, /* it was taken, or given up; this is the process that was there before */
  ICECORE_GUEST_RESTORED = 1, /* this is a restored process */
  ICECORE_GUEST_NOBODY =
      2,                 /* nobody waits to take one: not started by `icecore run --ready guest` */
  ICECORE_GUEST_LATE = 3 /* nobody took one within the time */
};

/* "Snapshot me now": asks `icecore run --ready guest` and returns when it is done, in the process
 * that was there before and in every restored one; in that one after all callbacks. */
ICECORE_GUEST_API enum icecore_guest_outcome icecore_guest_snapshot(unsigned timeout_ms);

/* Which restore this is: 0 as long as there was none, one more each time.  One read of memory. */
ICECORE_GUEST_API uint64_t icecore_guest_generation(void);

/* Where that is kept, for those who want to look at it often; NULL when the library could not
 * start. */
ICECORE_GUEST_API const volatile uint64_t* icecore_guest_generation_address(void);

/* 128 bits that no other process has, nor this one before its restore. */
ICECORE_GUEST_API void icecore_guest_id(unsigned char id[16]);

/* Called before a snapshot, on the library's thread, the latest registered first.  To close what
 * must not be saved.  Anything but 0 refuses the snapshot.  Whoever takes it waits so long and no
 * longer (10 s by default); then there is none. */
ICECORE_GUEST_API int icecore_guest_before_snapshot(int (*callback)(void* user), void* user);

/* Called after a restore, or where the program has just gone on, on the library's thread, in the
 * order in which they were registered.  Other threads run meanwhile.  Both return 0, or -1 when
 * there are too many. */
ICECORE_GUEST_API int icecore_guest_after_restore(void (*callback)(void* user), void* user);
ICECORE_GUEST_API int icecore_guest_after_snapshot(void (*callback)(void* user), void* user);

/* How long icecore_guest_snapshot() waits for the callbacks after a restore, in ms; 10,000 at
 * first. */
ICECORE_GUEST_API void icecore_guest_set_deadline(unsigned deadline_ms);

/* What differs at this invocation: `icecore run --env NAME=VALUE … -- COMMAND … -- ARGUMENTS`.
 * NULL: there is none.  The environment block stays what it was at the start. */
ICECORE_GUEST_API const char* icecore_guest_variable(const char* name);
ICECORE_GUEST_API size_t icecore_guest_argument_count(void);
ICECORE_GUEST_API const char* icecore_guest_argument(size_t index);

#ifdef __cplusplus
}
#endif
#endif
