// SPDX-License-Identifier: Apache-2.0
#include "sys/shared_memory.hpp"

#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#include <string>

#include "sys/call.hpp"
#include "sys/files.hpp"

namespace icecore::sys {
namespace {

constexpr const char* kNextId = "/proc/sys/kernel/shm_next_id";
constexpr std::uint32_t kPermissions = 0777;
constexpr std::uint32_t kRemoved = 01000;  // SHM_DEST

}  // namespace

std::optional<SegmentStatus> segment_status(int id) {
  ::shmid_ds status{};
  if (::shmctl(id, IPC_STAT, &status) != 0) {
    if (errno == EINVAL || errno == EIDRM) return std::nullopt;
    throw_errno(errno, fmt::format("look at shared memory segment {}", id));
  }
  return SegmentStatus{.key = status.shm_perm.__key,
                       .mode = status.shm_perm.mode & (kPermissions | kSegmentLocked),
                       .size_bytes = status.shm_segsz,
                       .owner = status.shm_perm.uid,
                       .group = status.shm_perm.gid,
                       .attachments = status.shm_nattch,
                       .removed = (status.shm_perm.mode & kRemoved) != 0};
}

std::optional<int> find_segment(int key) {
  const int id = ::shmget(key, 0, 0);
  if (id >= 0) return id;
  if (errno == ENOENT) return std::nullopt;
  throw_errno(errno, fmt::format("look for shared memory of key {:#x}", key));
}

bool can_choose_segment_ids() { return ::access(kNextId, W_OK) == 0; }

int make_segment(int key, std::uint64_t size_bytes, int wanted_id) {
  try_write_file(kNextId, std::to_string(wanted_id));
  return checked([&] { return ::shmget(key, size_bytes, IPC_CREAT | IPC_EXCL | 0600); },
                 "make a shared memory segment of {} bytes", size_bytes);
}

void set_segment(int id, const SegmentStatus& wanted) {
  ::shmid_ds status{};
  status.shm_perm.uid = wanted.owner;
  status.shm_perm.gid = wanted.group;
  status.shm_perm.mode = static_cast<unsigned short>(wanted.mode & kPermissions);
  checked([&] { return ::shmctl(id, IPC_SET, &status); },
          "give shared memory segment {} its owner and mode", id);
  if ((wanted.mode & kSegmentLocked) != 0)
    checked([&] { return ::shmctl(id, SHM_LOCK, nullptr); }, "lock shared memory segment {}", id);
}

void remove_segment(int id) noexcept { ::shmctl(id, IPC_RMID, nullptr); }

}  // namespace icecore::sys
