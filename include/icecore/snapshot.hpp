// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>
#include <icecore/progress.hpp>
#include <icecore/tcp_connections.hpp>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

namespace icecore {

/// How the pages lie in an image.
enum class Encoding {
  raw,   ///< page for page: restores fastest, and gdb opens the image as it is
  zstd,  ///< 64 KiB frames, each compressed by itself: smaller, restores slower
};

/// What becomes of a process that uses CUDA.
enum class GpuPolicy {
  checkpoint,  ///< its device memory is saved too, by the driver (570 or later)
  none,        ///< it is refused
};

struct SnapshotOptions {
  Encoding encoding = Encoding::raw;

  /// For Encoding::zstd: -7 (fastest) to 19 (smallest).
  int zstd_level = -1;

  /// Kill the target once the image is complete and on disk.  It never runs again after the state
  /// in the image was taken.
  bool kill = false;

  /// Let the target run on while its memory is copied, by way of a fork of it that never runs: it
  /// stands still for the shorter, and pays for the pages that it writes to meanwhile.  The fork is
  /// a child of the caller until snapshot() returns: so this is for a caller that is the target's
  /// parent, and does not wait for children it does not know.  Where it cannot be done (memory that
  /// is shared, or that a fork does not get; another parent; GPUs) it is as if it were not asked
  /// for.
  bool copy_on_write = false;

  /// Wait until the image is on disk.  Without it a power failure may lose the image; it is never
  /// seen incomplete by other processes either way.
  bool fsync = true;

  /// Descriptors that are not the process's own, whatever they are: each restore attaches the
  /// standard streams to its caller's and others to what RestoreOptions::external names.  By
  /// default those are the terminals, pipes and sockets whose other end somebody else has.
  std::vector<int> outside = {};

  /// What becomes of TCP connections with other processes.  Established ones go on in the process
  /// that is snapshotted; in a restored one only where that was killed (see `kill`), whose end the
  /// peers are not told.
  TcpConnections tcp = TcpConnections::refuse;

  /// The program was started with baseline_environment() of this baseline, so it needs no vector
  /// instructions beyond it.
  std::string cpu_baseline = {};

  /// How long to wait for the callbacks of a program with libicecore_guest.
  std::chrono::milliseconds hook_patience{10'000};

  GpuPolicy gpu = GpuPolicy::checkpoint;
  /// How long to wait for work that the process has given to its GPUs already.
  std::chrono::milliseconds gpu_patience{10'000};
  /// How long the driver may take to move device memory.  0: as its size lets expect.
  std::chrono::milliseconds gpu_move_patience{0};

  ProgressCallback progress = {};

  /// A request to stop ends the snapshot with Errc::cancelled within milliseconds.
  std::stop_token stop = {};
};

/// What a snapshot took, and where the time went.
struct SnapshotReport {
  std::chrono::nanoseconds total{};   ///< from the call to its return
  std::chrono::nanoseconds frozen{};  ///< how long the target stood still
  std::chrono::nanoseconds freeze{};  ///< part of `frozen`: until every thread had stopped
  std::chrono::nanoseconds state{};   ///< part of `frozen`: reading everything but the pages
  std::chrono::nanoseconds pages{};  ///< part of `frozen` unless copied_on_write: reading the pages
  std::chrono::nanoseconds commit{};  ///< the end of the file, fsync, rename: the target runs again

  bool copied_on_write = false;  ///< it was asked for, and done

  std::chrono::nanoseconds gpu_lock{};    ///< before `frozen`: until its GPUs had nothing to do
  std::chrono::nanoseconds gpu_save{};    ///< part of `frozen`: device memory into memory
  std::chrono::nanoseconds gpu_resume{};  ///< part of `frozen`: and back, unless it was killed
  std::uint64_t gpu_bytes = 0;            ///< of device memory, that the driver saved
  std::uint64_t gpu_buffer_bytes = 0;     ///< that libicecore_guest takes care of

  std::uint64_t threads = 0;
  std::uint64_t mappings = 0;
  std::uint64_t descriptors = 0;
  std::uint64_t stored_pages = 0;  ///< of 4 KiB
  std::uint64_t zero_pages = 0;    ///< present in the target, found to be zero, not stored
  std::uint64_t image_bytes = 0;
};

/// Freezes the process `pid`, writes it to `image`, and lets it run on (or kills it).
///
/// The image appears at `image` whole or not at all, with mode 0600, replacing what was there.
/// Needs the right to ptrace the target, and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
/// May be called from any thread; the ptrace work is done on a thread of its own.
/// Throws icecore::Error; the target then runs on unharmed.
ICECORE_EXPORT SnapshotReport snapshot(pid_t pid, const std::filesystem::path& image,
                                       const SnapshotOptions& options = {});

/// Lets a program with libicecore_guest go on that waits for a snapshot which nobody will take.
/// Does nothing while somebody takes one, at whose end it goes on.
ICECORE_EXPORT void let_guest_go_on(pid_t pid);

}  // namespace icecore
