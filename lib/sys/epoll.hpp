// SPDX-License-Identifier: Apache-2.0
#pragma once

// epoll(7) instances: what they watch.
//
// Kernel facts relied on here:
//  * fdinfo lists every watch with the descriptor number it was added by ("tfd"), also when that
//    number is closed or leads to another file by now: the watch belongs to the open file
//    description and lives as long as that does.  KCMP_EPOLL_TFD says which file it is; among
//    watches of one number it counts in the order of the list.
//  * A watch with EPOLLONESHOT that has fired is listed without any event to wait for.
//    EPOLL_CTL_ADD and EPOLL_CTL_MOD always add EPOLLERR and EPOLLHUP, so that state is only
//    reached by letting it fire.
//  * Adding a watch reports what is ready at once, also with EPOLLET.

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "sys/files.hpp"

namespace icecore::sys {

struct EpollWatch {
  int number = -1;           ///< of the descriptor by which it was added
  int occurrence = 0;        ///< among the watches of that number
  std::uint32_t events = 0;  ///< EPOLLIN …, with the flags
  std::uint64_t data = 0;
  std::uint64_t inode = 0;  ///< of the file that is watched
};

/// As fdinfo lists them.
std::vector<EpollWatch> epoll_watches(const DescriptorInfo& info);

/// True when `watch` of descriptor `epoll` watches what descriptor `number` leads to, all of `pid`.
bool watches(pid_t pid, int epoll, const EpollWatch& watch, int number);

Fd make_epoll();

/// Whether it may be watched at all: regular files and /dev/null, for two, may not.
bool can_be_watched(const Fd& file);

/// True when its busy polling has been configured (EPIOCSPARAMS, Linux 6.9).
bool polls_busily(const Fd& epoll);

}  // namespace icecore::sys
