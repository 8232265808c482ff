// SPDX-License-Identifier: Apache-2.0
#pragma once

// inotify(7).
//
// Kernel facts relied on here:
//  * fdinfo shows each watch with inode, device and file handle (CONFIG_EXPORTFS), and no path; the
//    inode stays in memory, but perhaps none of its names.
//  * open_by_handle_at(2) wants CAP_DAC_READ_SEARCH, and any descriptor on the same file system.
//  * Numbers of watches are given out in order, each once; so the ones between are made and removed
//    again.  The removal of a watch is an event (IN_IGNORED).
//  * FIONREAD gives the bytes of the events that wait; nothing shows what they are without taking
//    them.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/fd.hpp"

namespace icecore::sys {

struct InotifyWatch {
  int descriptor = 0;
  std::uint32_t mask = 0;
  std::uint64_t inode = 0;
  std::uint64_t device = 0;  ///< as st_dev
  int handle_type = 0;
  std::vector<std::uint8_t> handle;  ///< of open_by_handle_at(2)
};
/// Ascending by descriptor.  Throws when the kernel does not tell.
std::vector<InotifyWatch> inotify_watches(pid_t pid, int number);

/// A path that leads to what is watched, if any can be found.
std::optional<std::string> find_watched(const InotifyWatch& watch);

/// True when that path leads to it.
bool leads_to_watched(const std::string& path, const InotifyWatch& watch);

Fd make_inotify();

/// Adds a watch with this number.  Numbers must ascend from call to call; `next` is the first that
/// has not been given out, 1 at first.
void add_watch(const Fd& inotify, const std::string& path, std::uint32_t mask, int number,
               int& next);

}  // namespace icecore::sys
