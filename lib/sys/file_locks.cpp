// SPDX-License-Identifier: Apache-2.0
#include "sys/file_locks.hpp"

#include <sys/file.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "sys/call.hpp"

namespace icecore::sys {
namespace {

/// "1: POSIX  ADVISORY  WRITE 812 fd:00:1234 0 EOF".
FileLock parse(const std::string& line) {
  std::istringstream words{line};
  std::string number, kind, state, type, pid, file, start, last;
  words >> number >> kind >> state >> type >> pid >> file >> start >> last;
  FileLock lock{.kind = LockKind::process,
                .exclusive = type == "WRITE",
                .start = std::strtoull(start.c_str(), nullptr, 10),
                .last = last == "EOF" ? kEndOfLocks : std::strtoull(last.c_str(), nullptr, 10)};
  if (kind == "OFDLCK")
    lock.kind = LockKind::description;
  else if (kind == "FLOCK")
    lock.kind = LockKind::flock;
  else if (kind == "LEASE" && state == "ACTIVE")
    lock.kind = LockKind::lease;
  else if (kind != "POSIX" || last.empty())
    throw Error{Errc::unsupported, fmt::format("a lock \"{}\" is held: cannot be kept", line)};
  return lock;
}

}  // namespace

std::vector<FileLock> held_locks(const DescriptorInfo& info) {
  std::vector<FileLock> locks;
  for (const std::string& line : info.lines("lock")) locks.push_back(parse(line));
  return locks;
}

bool has_lease_for_writing(const DescriptorInfo& info) {
  return std::ranges::any_of(held_locks(info), [](const FileLock& lock) {
    return lock.kind == LockKind::lease && lock.exclusive;
  });
}

struct ::flock as_fcntl(const FileLock& lock) {
  struct ::flock wanted {};
  wanted.l_type = lock.exclusive ? F_WRLCK : F_RDLCK;
  wanted.l_whence = SEEK_SET;
  wanted.l_start = static_cast<off_t>(lock.start);
  wanted.l_len = lock.last == kEndOfLocks ? 0 : static_cast<off_t>(lock.last - lock.start + 1);
  return wanted;
}

bool try_lock(const Fd& file, const FileLock& lock) {
  const struct ::flock wanted = as_fcntl(lock);
  if (::fcntl(file.get(), F_OFD_SETLK, &wanted) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  throw_errno(errno, "lock a file");
}

bool can_flock(const Fd& file, bool exclusive) {
  if (::flock(file.get(), flock_operation(exclusive)) == 0) {
    checked([&] { return ::flock(file.get(), LOCK_UN); }, "unlock a file");
    return true;
  }
  if (errno == EAGAIN) return false;
  throw_errno(errno, "lock a file");
}

int flock_operation(bool exclusive) noexcept { return (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB; }

std::optional<pid_t> lock_in_the_way(const Fd& file, const FileLock& lock) {
  struct ::flock wanted = as_fcntl(lock);
  checked([&] { return ::fcntl(file.get(), F_OFD_GETLK, &wanted); }, "look for locks of a file");
  if (wanted.l_type == F_UNLCK) return std::nullopt;
  return wanted.l_pid;
}

std::optional<::f_owner_ex> signal_owner(const Fd& file) {
  ::f_owner_ex owner{};
  if (::fcntl(file.get(), F_GETOWN_EX, &owner) != 0 || owner.pid == 0) return std::nullopt;
  return owner;
}

void set_signal_owner(const Fd& file, const ::f_owner_ex& owner) {
  checked([&] { return ::fcntl(file.get(), F_SETOWN_EX, &owner); },
          "send the signals of a descriptor to {}", owner.pid);
}

int owner_signal(const Fd& file) { return std::max(0, ::fcntl(file.get(), F_GETSIG)); }

void set_owner_signal(const Fd& file, int signal) {
  checked([&] { return ::fcntl(file.get(), F_SETSIG, signal); }, "set the signal of a descriptor");
}

}  // namespace icecore::sys
