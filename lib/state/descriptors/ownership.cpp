// SPDX-License-Identifier: Apache-2.0
#include "state/descriptors/ownership.hpp"

#include <fcntl.h>

#include <algorithm>

#include "sys/file_locks.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

bool leads_own_group(pid_t pid, pid_t group) {
  const auto stat = sys::read_stat(pid);
  return stat && stat->group == group && group == pid;
}

void capture_signal_owner(const DescriptorCapture& all, const OpenDescription& open,
                          state::DescriptionT& description) {
  description.async = (open.flags & O_ASYNC) != 0;
  description.owner_signal = sys::owner_signal(open.copy);
  const auto owner = sys::signal_owner(open.copy);
  if (!owner) return;
  const auto threads = all.capture.process.threads();
  const auto thread = std::ranges::find(threads, owner->pid, &Tracee::tid);
  if (owner->type == F_OWNER_PID && owner->pid == all.capture.pid) {
    description.owner = state::SignalOwner::process;
  } else if (owner->type == F_OWNER_TID && thread != threads.end()) {
    description.owner = state::SignalOwner::thread;
    description.owner_thread = static_cast<std::uint32_t>(thread - threads.begin());
  } else if (owner->type == F_OWNER_PGRP && leads_own_group(all.capture.pid, owner->pid)) {
    description.owner = state::SignalOwner::group;
  } else {
    throw Error{Errc::unsupported,
                fmt::format("{}: its signals (F_SETOWN) go to {} {}, outside the process: cannot "
                            "be kept",
                            open.link, owner->type == F_OWNER_PGRP ? "process group" : "process",
                            owner->pid)};
  }
}

void capture_locks(const OpenDescription& open, state::DescriptionT& description) {
  for (const sys::FileLock& lock : sys::held_locks(open.info)) {
    description.locks.emplace_back(lock.start, lock.last, static_cast<state::LockKind>(lock.kind),
                                   lock.exclusive);
  }
}

sys::FileLock lock_of(const state::FileLock& lock) {
  return {static_cast<sys::LockKind>(lock.kind()), lock.exclusive(), lock.start(), lock.last()};
}

}  // namespace

void capture_ownership(const DescriptorCapture& all, const OpenDescription& open,
                       state::DescriptionT& description) {
  if ((open.flags & O_PATH) != 0) return;
  capture_signal_owner(all, open, description);
  capture_locks(open, description);
  const auto* external = description.open.AsExternal();
  if (external == nullptr) return;
  const bool sends = description.async || description.owner_signal != 0 ||
                     description.owner != state::SignalOwner::none;
  // That terminal is opened anew for it; others belong to the caller of restore.
  const bool is_opened_anew = external->controlling && !external->standard;
  if (!description.locks.empty() || (sends && !is_opened_anew))
    throw Error{Errc::unsupported,
                fmt::format("{}: leads outside, and sends signals or is locked (O_ASYNC, "
                            "F_SETOWN, flock): cannot be kept",
                            open.link)};
}

void take_locks(const sys::Fd& ours, const state::DescriptionT& description, int number) {
  for (const state::FileLock& wanted : description.locks) {
    const sys::FileLock lock = lock_of(wanted);
    if (lock.kind == sys::LockKind::lease) continue;
    if (lock.kind == sys::LockKind::flock && sys::can_flock(ours, lock.exclusive)) continue;
    if (lock.kind == sys::LockKind::description && sys::try_lock(ours, lock)) continue;
    std::string holder = "somebody else holds one";
    if (lock.kind != sys::LockKind::flock) {
      const auto pid = sys::lock_in_the_way(ours, lock);
      if (!pid && lock.kind == sys::LockKind::process) continue;
      if (pid && *pid > 0) holder = fmt::format("process {} holds one", *pid);
    }
    throw Error{
        Errc::incompatible,
        fmt::format("fd {}: {}: the lock that the process had on it cannot be taken: {}", number,
                    sys::read_link(fmt::format("/proc/self/fd/{}", ours.get())), holder)};
  }
}

void finish_ownership(const DescriptorFinish& stage, const state::DescriptionT& description,
                      int number) {
  const auto fd = static_cast<std::uint64_t>(number);
  for (const state::FileLock& wanted : description.locks) {
    const sys::FileLock lock = lock_of(wanted);
    if (lock.kind == sys::LockKind::process) {
      CallList& list = stage.calls.room(1, sizeof(struct ::flock));
      list.call("lock a file", SYS_fcntl, {fd, F_SETLK, list.put_value(sys::as_fcntl(lock))});
    } else if (lock.kind == sys::LockKind::lease) {
      stage.calls.call(
          "take a lease on a file", SYS_fcntl,
          {fd, F_SETLEASE, static_cast<std::uint64_t>(lock.exclusive ? F_WRLCK : F_RDLCK)});
    } else if (lock.kind == sys::LockKind::flock) {
      stage.calls.call("lock a file", SYS_flock,
                       {fd, static_cast<std::uint64_t>(sys::flock_operation(lock.exclusive))});
    }
  }
  if (description.async)
    stage.calls.call("have a descriptor send signals", SYS_fcntl,
                     {fd, F_SETFL, description.flags | O_ASYNC});
}

void rebuild_signal_owner(const sys::Fd& ours, const state::DescriptionT& description,
                          const std::vector<pid_t>& threads) {
  if (description.owner_signal != 0) sys::set_owner_signal(ours, description.owner_signal);
  switch (description.owner) {
    case state::SignalOwner::none:
      return;
    case state::SignalOwner::process:
      return sys::set_signal_owner(ours, {F_OWNER_PID, threads.front()});
    case state::SignalOwner::thread:
      return sys::set_signal_owner(ours, {F_OWNER_TID, threads[description.owner_thread]});
    case state::SignalOwner::group:
      return sys::set_signal_owner(ours, {F_OWNER_PGRP, threads.front()});
  }
}

}  // namespace icecore
