// SPDX-License-Identifier: Apache-2.0
#pragma once

// Locks and leases of files, and who gets the signals of a descriptor.
//
// Kernel facts relied on here:
//  * /proc/PID/fdinfo/N has a line "lock:" for every lock that was set through this open file
//    description; those of F_SETLK are shown for the process that holds them only.
//  * Locks of F_SETLK belong to the table of descriptors: closing any descriptor of the file drops
//    them.  Those of F_OFD_SETLK and flock(2), and leases, belong to the open file description.
//  * /proc/locks names who took a lock of flock(2); taking it once more changes nothing.
//  * A lease for writing can be taken where the file is open once, and any open(2) of it, but with
//    O_PATH, breaks the lease: who holds it is sent a signal.
//  * F_OFD_GETLK tells who else holds a lock of fcntl(2) that is in the way, whatever its kind, but
//    for locks of the same description.
//  * O_ASYNC remembers the number of the descriptor through which it was set, for si_fd.

#include <fcntl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/files.hpp"

namespace icecore::sys {

enum class LockKind : std::uint8_t { process, description, flock, lease };

struct FileLock {
  LockKind kind;
  bool exclusive;
  std::uint64_t start;
  std::uint64_t last;  ///< of the locked bytes; kEndOfLocks: all to come
};
constexpr std::uint64_t kEndOfLocks = INT64_MAX;

/// The locks set through a description.  Throws Errc::unsupported for kinds that are none of the
/// above, and for a lease that is being broken.
std::vector<FileLock> held_locks(const DescriptorInfo& info);

/// True when a lease for writing is held through the description.
bool has_lease_for_writing(const DescriptorInfo& info);

/// As fcntl(2) takes it.
struct ::flock as_fcntl(const FileLock& lock);

/// False when somebody else's is in the way.  For kind `description`.
bool try_lock(const Fd& file, const FileLock& lock);

/// True when nobody else's is in the way of one of flock(2).
bool can_flock(const Fd& file, bool exclusive);

/// LOCK_EX or LOCK_SH, and LOCK_NB.
int flock_operation(bool exclusive) noexcept;

/// Who holds a lock of fcntl(2) that is in the way of this one; -1: an open file description, which
/// tells of no process.
std::optional<pid_t> lock_in_the_way(const Fd& file, const FileLock& lock);

/// F_GETOWN_EX; nothing when nobody gets signals.
std::optional<::f_owner_ex> signal_owner(const Fd& file);
void set_signal_owner(const Fd& file, const ::f_owner_ex& owner);

/// F_GETSIG: the signal that is sent instead of SIGIO, or 0.
int owner_signal(const Fd& file);
void set_owner_signal(const Fd& file, int signal);

}  // namespace icecore::sys
