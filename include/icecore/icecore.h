/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of icecore.  It says what icecore/snapshot.hpp and icecore/restore.hpp say, and
 * these rules:
 *
 *  1. What can fail returns an icecore_error: NULL is success; anything else is freed by
 * icecore_error_free().
 *  2. Each kind of object is opaque and has one function that frees it, which may be given NULL.
 *  3. Structs of options begin with size_t struct_size = sizeof, so that either side may be the
 * newer one; 0 in a field means the default.  A pointer to options may be NULL.
 *  4. Enumerations have fixed values.  New ones may be added: be ready for a value that you do not
 * know.
 *  5. No function changes signal handlers, forks the caller, or leaves a descriptor that an exec
 * would inherit; all may be called from any thread.  One object is used by one thread at a time.
 *  6. Strings that are given are copied; strings that are returned live as long as what they were
 * asked of.
 *  7. Results are left alone where there is an error.
 */
#ifndef ICECORE_ICECORE_H
#define ICECORE_ICECORE_H

#include <icecore/export.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors
 * ----------------------------------------------------------------------------------------- */

typedef struct icecore_error icecore_error;

enum icecore_code {
  ICECORE_OK = 0,
  ICECORE_INVALID_ARGUMENT = 1, /* the call makes no sense: fix the call */
  ICECORE_TARGET_GONE = 2,      /* the process ended before the snapshot was complete */
  ICECORE_PERMISSION = 3,       /* the kernel does not allow it to this caller */
  ICECORE_UNSUPPORTED = 4,   /* the process has state that cannot be snapshotted: see the reasons */
  ICECORE_CORRUPT_IMAGE = 5, /* the image is damaged, or is no image */
  ICECORE_INCOMPATIBLE =
      6,          /* the image cannot be restored here, as things are now: see the reasons */
  ICECORE_IO = 7, /* a file or device failed */
  ICECORE_CANCELLED = 8,
  ICECORE_INTERNAL = 9 /* a promise inside icecore is broken: please report it */
};

ICECORE_EXPORT enum icecore_code icecore_error_code(
    const icecore_error* error);                                    /* of NULL: ICECORE_OK */
ICECORE_EXPORT int icecore_error_errno(const icecore_error* error); /* or 0 */
ICECORE_EXPORT const char* icecore_error_message(const icecore_error* error);
ICECORE_EXPORT size_t icecore_error_reason_count(const icecore_error* error);
ICECORE_EXPORT const char* icecore_error_reason(const icecore_error* error, size_t index);
ICECORE_EXPORT void icecore_error_free(icecore_error* error);

/* ---- snapshot
 * --------------------------------------------------------------------------------------- */

enum icecore_encoding { ICECORE_RAW = 0, ICECORE_ZSTD = 1 };

/* A process that uses CUDA: its device memory is saved too, or it is refused. */
enum icecore_gpu { ICECORE_GPU_CHECKPOINT = 0, ICECORE_GPU_NONE = 1 };

/* TCP connections whose other end another process has: each is named and nothing done, or the
 * restored process finds them reset, or they go on (needs CAP_NET_ADMIN). */
enum icecore_tcp { ICECORE_TCP_REFUSE = 0, ICECORE_TCP_CLOSE = 1, ICECORE_TCP_ESTABLISHED = 2 };

typedef struct {
  size_t struct_size;
  enum icecore_encoding encoding;
  int zstd_level;     /* 0: the default */
  int kill;           /* not 0: kill the process once the image is on disk */
  int no_fsync;       /* not 0: do not wait until the image is on disk */
  const int* outside; /* descriptors that belong to whoever restores */
  size_t outside_count;
  const char* cpu_baseline; /* "x86-64-v3" …, or NULL */
  enum icecore_gpu gpu;
  unsigned gpu_patience_ms;      /* for work that its GPUs have still to do; 0: 10 s */
  unsigned gpu_move_patience_ms; /* for the driver to move memory; 0: as its size lets expect */
  unsigned hook_patience_ms;     /* for callbacks of libicecore_guest; 0: 10 s */
  /* not 0: let our child run on while its memory is copied, from a fork of it that is another child
   * of ours until this returns */
  int copy_on_write;
  enum icecore_tcp tcp;
} icecore_snapshot_options;

typedef struct {
  size_t struct_size;
  uint64_t total_ns, frozen_ns, freeze_ns, state_ns, pages_ns, commit_ns;
  uint64_t threads, mappings, descriptors, stored_pages, zero_pages, image_bytes;
  uint64_t gpu_lock_ns;                /* before frozen_ns */
  uint64_t gpu_save_ns, gpu_resume_ns; /* parts of frozen_ns */
  uint64_t gpu_bytes;                  /* of device memory, that the driver saved */
  uint64_t gpu_buffer_bytes;           /* that libicecore_guest takes care of */
  uint64_t copied_on_write;            /* 1: it was asked for, and done */
} icecore_snapshot_report;

/* Freezes the process, writes it to a file, and lets it run on or kills it.  `report` may be NULL;
 * its struct_size is set by the caller. */
ICECORE_EXPORT icecore_error* icecore_snapshot(pid_t pid, const char* image_path,
                                               const icecore_snapshot_options* options,
                                               icecore_snapshot_report* report);

/* ---- images
 * ------------------------------------------------------------------------------------------ */

typedef struct icecore_image icecore_image;

ICECORE_EXPORT icecore_error* icecore_open(const char* image_path, icecore_image** image);
ICECORE_EXPORT void icecore_image_free(icecore_image* image);

/* ---- restore
 * ----------------------------------------------------------------------------------------- */

enum icecore_pids { ICECORE_PIDS_AUTO = 0, ICECORE_PIDS_SAME = 1, ICECORE_PIDS_NAMESPACE = 2 };
enum icecore_loading { ICECORE_LOAD_AUTO = 0, ICECORE_LOAD_LAZY = 1, ICECORE_LOAD_EAGER = 2 };

/* What takes the place of descriptor `number`: a path, or a descriptor of the caller, or nothing at
 * all. */
typedef struct {
  int number;
  const char* path; /* NULL: see `descriptor` */
  int descriptor;   /* -1: closed */
} icecore_external;

/* Which GPU takes the place of which: UUIDs as nvidia-smi prints them. */
typedef struct {
  const char* of_image;
  const char* here;
} icecore_gpu_pair;

typedef struct {
  size_t struct_size;
  enum icecore_pids pids;
  enum icecore_loading loading;
  const icecore_external* external;
  size_t external_count;
  const int* standard_streams;  /* three descriptors; NULL: those of the caller */
  const char* const* variables; /* of this invocation, "NAME=VALUE" …, NULL; may be NULL */
  const char* const* arguments; /* of this invocation, …, NULL; may be NULL */
  const icecore_gpu_pair* gpu_map;
  size_t gpu_map_count;
  unsigned gpu_move_patience_ms; /* for the driver to move memory; 0: as its size lets expect */
  enum icecore_tcp tcp;          /* of an image that holds them established */
} icecore_restore_options;

/* NULL when the image can be restored here; else ICECORE_INCOMPATIBLE with every reason. */
ICECORE_EXPORT icecore_error* icecore_check(const icecore_image* image,
                                            const icecore_restore_options* options);

typedef struct icecore_process icecore_process;   /* runs; a child of the caller */
typedef struct icecore_prepared icecore_prepared; /* complete, but does not run yet */

ICECORE_EXPORT icecore_error* icecore_restore(const icecore_image* image,
                                              const icecore_restore_options* options,
                                              icecore_process** process);
ICECORE_EXPORT icecore_error* icecore_prepare(const icecore_image* image,
                                              const icecore_restore_options* options,
                                              icecore_prepared** prepared);

/* Lets it run.  `prepared` is freed, whatever comes of it. */
ICECORE_EXPORT icecore_error* icecore_start(icecore_prepared* prepared, icecore_process** process);

ICECORE_EXPORT pid_t icecore_prepared_pid(const icecore_prepared* prepared);
ICECORE_EXPORT void icecore_prepared_free(icecore_prepared* prepared); /* ends it */

ICECORE_EXPORT pid_t icecore_process_pid(const icecore_process* process);
ICECORE_EXPORT int icecore_process_pidfd(const icecore_process* process); /* owned by `process` */
ICECORE_EXPORT void icecore_process_free(icecore_process* process);       /* does nothing to it */

/* Waits for its end and reaps it; `status` as of wait(2).  Once only. */
ICECORE_EXPORT icecore_error* icecore_wait(icecore_process* process, int* status);

typedef struct {
  size_t struct_size;
  uint64_t total_ns, check_ns, build_ns, fill_ns, thaw_ns;                   /* of the restore */
  uint64_t filled_bytes, prefetched_bytes;                                   /* before it ran */
  uint64_t faults, fault_bytes, background_bytes, missing_bytes, lost_bytes; /* since */
  int lazy, in_namespace, complete;
  uint64_t gpu_ns;    /* of the restore: device memory, by the driver */
  uint64_t gpu_bytes; /* of device memory */
} icecore_statistics;

/* The caller sets struct_size. */
ICECORE_EXPORT void icecore_process_statistics(const icecore_process* process,
                                               icecore_statistics* statistics);

#ifdef __cplusplus
}
#endif
#endif
