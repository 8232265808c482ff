// SPDX-License-Identifier: Apache-2.0
#pragma once

// Membership of sockets in multicast groups.
//
// Kernel facts relied on here:
//  * /proc/net/igmp and igmp6 list the groups that an interface has members of (or is in anyway),
//    not their sockets.  MCAST_MSFILTER tells of one socket and group the sources, and fails with
//    EADDRNOTAVAIL where it is no member.
//  * It counts all sources, but gives only as many as it is asked for.
//  * A member of a group without sources (MCAST_INCLUDE of none) is no member.

#include <optional>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/socket.hpp"

namespace icecore::sys {

struct MulticastGroup {
  std::string interface;  ///< its name
  Bytes address;          ///< struct sockaddr_in or sockaddr_in6
};

/// Those of our network that anybody is in.
std::vector<MulticastGroup> multicast_groups();

struct Membership {
  MulticastGroup group;
  bool from_sources_only = false;  ///< MCAST_INCLUDE
  Bytes sources;                   ///< addresses like that of the group, one behind the other
};

/// Nothing when the socket is not in it.
std::optional<Membership> membership(const Fd& socket, const MulticastGroup& group);

void join(const Fd& socket, const Membership& membership);

bool has_interface(const std::string& name);

}  // namespace icecore::sys
