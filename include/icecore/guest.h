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
 * that was there before and in every restored one, in either after its callbacks.  When nobody has
 * taken one after `timeout_ms`: LATE.  No callbacks keep it for longer than they have time, see
 * icecore_guest_set_deadline(). */
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

/* How long icecore_guest_snapshot() waits for callbacks, each time for all of them together, in ms;
 * 10,000 at first.  When those before a snapshot take longer, or than its timeout, it returns LATE,
 * and the snapshot is refused; when others do, it returns what became of the snapshot, and they go
 * on meanwhile. */
ICECORE_GUEST_API void icecore_guest_set_deadline(unsigned deadline_ms);

/* What differs at this invocation: `icecore run --env NAME=VALUE … -- COMMAND … -- ARGUMENTS`.
 * NULL: there is none.  The environment block stays what it was at the start. */
ICECORE_GUEST_API const char* icecore_guest_variable(const char* name);
ICECORE_GUEST_API size_t icecore_guest_argument_count(void);
ICECORE_GUEST_API const char* icecore_guest_argument(size_t index);

/* ---- buffers in NVIDIA GPUs
 * ------------------------------------------------------------------------
 *
 * Device memory that is not in the image, or comes into it faster than the driver brings it there.
 * Before a snapshot the library gives these buffers back to the GPU, and afterwards, in the process
 * that goes on as in every restored one, it has them at the same device addresses again.  All other
 * device memory is the driver's business.  The program uses libcuda already: the library only finds
 * it.
 *
 *  4. All functions below but the queries return 0 or a CUresult.  They leave the current context
 * of the calling thread as it is; the library uses the primary context of each device.
 *  5. Whoever reads or writes these buffers, by copies or kernels, gives that work to the GPU
 * between icecore_guest_gpu_enter() and icecore_guest_gpu_leave().  A snapshot waits 5 s for those
 * who are inside and is then refused; work that was given is waited for.  Not to be called in a
 * callback that runs before a snapshot, nor icecore_guest_snapshot() inside. */

enum icecore_guest_gpu_contents {
  ICECORE_GUEST_GPU_KEEP = 0, /* saved with a digest of 128 bits; verified when they are back */
  ICECORE_GUEST_GPU_DROP = 1, /* not saved: zeros afterwards.  See icecore_guest_gpu_losses() */
  ICECORE_GUEST_GPU_FILE = 2  /* are those of a file.  One in which the program, or whose file
                                 somebody, has written meanwhile is ICECORE_GUEST_GPU_KEEP from the
                                 next snapshot on */
};

struct icecore_guest_gpu_options {
  size_t struct_size; /* sizeof */
  int device;         /* as cuDeviceGet numbers them */
  enum icecore_guest_gpu_contents contents;
  /* With ICECORE_GUEST_GPU_FILE: the library keeps the file open, so a restore refuses to begin
   * when it has changed. */
  const char* file;
  uint64_t file_offset;
};

/* Device memory of the size asked for (rounded up to the device's granularity, mostly 2 MiB);
 * zeros, or what is in the file.  301: it cannot be opened or read, or is too short. */
ICECORE_GUEST_API int icecore_guest_gpu_allocate(const struct icecore_guest_gpu_options* options,
                                                 size_t size_bytes, unsigned long long* address);

/* The same of memory that the program has mapped by itself, all of one cuMemCreate with one
 * cuMemMap, and not shared with another process (801).  The library takes the handle over: there
 * must be no other reference to it.  With ICECORE_GUEST_GPU_FILE the contents are replaced by the
 * file's. */
ICECORE_GUEST_API int icecore_guest_gpu_register(const struct icecore_guest_gpu_options* options,
                                                 unsigned long long address, size_t size_bytes,
                                                 unsigned long long handle);

/* Memory of icecore_guest_gpu_allocate() is freed.  That of icecore_guest_gpu_register() stays
 * mapped, and `handle` (which may be NULL for the first kind) is by now this one. */
ICECORE_GUEST_API int icecore_guest_gpu_forget(unsigned long long address,
                                               unsigned long long* handle);

/* Waits while buffers are away.  leave() ends what enter() began, on the same thread or another. */
ICECORE_GUEST_API void icecore_guest_gpu_enter(void);
ICECORE_GUEST_API void icecore_guest_gpu_leave(void);

/* 0: the buffer is there.  Else the CUresult for which it could not be brought back, 999 for bytes
 * that are not those of its digest; its address leads nowhere then.  1: there is none. */
ICECORE_GUEST_API int icecore_guest_gpu_status(unsigned long long address);

/* How often its contents became zeros: what was computed there has to be rebuilt.  Every snapshot
 * is one loss of an ICECORE_GUEST_GPU_DROP, also where the program goes on. */
ICECORE_GUEST_API uint64_t icecore_guest_gpu_losses(unsigned long long address);

/* Of the last time that buffers were given back, and of the last time that they came back.  Stages
 * overlap, and are sums over several threads. */
struct icecore_guest_gpu_statistics {
  size_t struct_size;             /* of the caller */
  uint64_t saved_bytes, saved_ns; /* out of the GPUs, and how long all of it took */
  uint64_t restored_bytes, restored_ns;
  uint64_t device_ns, digest_ns, memory_ns, file_ns; /* waiting for copies; at work */
};
ICECORE_GUEST_API void icecore_guest_gpu_get_statistics(struct icecore_guest_gpu_statistics* to);

/* For torch.cuda.memory.CUDAPluggableAllocator("libicecore_guest.so",
 * "icecore_guest_gpu_torch_drop", "icecore_guest_gpu_torch_free"): a torch.cuda.MemPool for what is
 * rebuilt later. */
ICECORE_GUEST_API void* icecore_guest_gpu_torch_keep(ptrdiff_t size, int device, void* stream);
ICECORE_GUEST_API void* icecore_guest_gpu_torch_drop(ptrdiff_t size, int device, void* stream);
ICECORE_GUEST_API void icecore_guest_gpu_torch_free(void* memory, ptrdiff_t size, int device,
                                                    void* stream);

#ifdef __cplusplus
}
#endif
#endif
