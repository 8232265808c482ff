// SPDX-License-Identifier: Apache-2.0
#pragma once

// Shared memory of shmget(2), of the IPC namespace we live in.
//
// Kernel facts relied on here:
//  * A mapping of it shows in /proc/PID/maps with the segment's id as inode and "/SYSV" and its key
//    as name, also when the segment has been removed since: then its key is 0.
//  * Every mapping counts as an attachment; a mapping that is split counts twice.
//  * A removed segment lives until its last attachment goes; until then its id can be attached.
//  * /proc/sys/kernel/shm_next_id chooses the id of the next segment, unless its place is taken
//    (CONFIG_CHECKPOINT_RESTORE; CAP_CHECKPOINT_RESTORE).

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace icecore::sys {

struct SegmentStatus {
  int key = 0;
  std::uint32_t mode = 0;  ///< permissions, and kSegmentLocked
  std::uint64_t size_bytes = 0;
  uid_t owner = 0;
  gid_t group = 0;
  std::uint64_t attachments = 0;
  bool removed = false;
};
constexpr std::uint32_t kSegmentLocked = 02000;  // SHM_LOCKED

/// Nothing when there is no such segment.
std::optional<SegmentStatus> segment_status(int id);

/// The id of the segment with this key, if there is any.
std::optional<int> find_segment(int key);

/// Whether the id of a new segment can be chosen.
bool can_choose_segment_ids();

/// A new segment; key 0 is IPC_PRIVATE.  It has the wanted id if that is free.
int make_segment(int key, std::uint64_t size_bytes, int wanted_id);
/// Owner, group, permissions and lock of one.
void set_segment(int id, const SegmentStatus& wanted);
/// It goes with its last attachment.
void remove_segment(int id) noexcept;

}  // namespace icecore::sys
