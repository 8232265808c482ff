// SPDX-License-Identifier: Apache-2.0
#pragma once

// sock_diag(7): what the kernel tells of sockets by their inodes.
//
// Kernel facts relied on here:
//  * It finds a socket of unix(7) by its inode; those of the internet only by their names, so all
//  of
//    a family are asked for and picked by inode.
//  * The peer of a connection that nobody has accepted yet, and one that has been closed, has
//    inode 0; only the latter shuts both directions.
//  * Directions that are shut down are told of UDP sockets that have a port (CONFIG_INET_UDP_DIAG).
//  * An answer about one socket is one datagram; a dump is many, the last with NLMSG_DONE.

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "sys/fd.hpp"

namespace icecore::sys {

struct UnixSocket {
  std::optional<std::uint64_t> peer;   ///< inode; 0: see above
  std::vector<std::uint64_t> waiting;  ///< inodes of those that wait to be accepted, in order
  std::uint32_t backlog = 0;
  int shut = 0;  ///< directions that are shut: 1 read, 2 write
  std::optional<std::pair<std::uint64_t, std::uint64_t>> file;  ///< device and inode of its name
};

/// Asks about sockets of unix(7).
class UnixSockets {
 public:
  UnixSockets();
  /// Throws when it cannot be found.
  UnixSocket find(std::uint64_t inode) const;

 private:
  Fd netlink_;
};

/// How the UDP (or UDP-Lite) sockets of one family are shut down, 1 read, 2 write, 3 both, by
/// inode; those that are, and have a port.  None where the kernel does not tell.
std::map<std::uint64_t, int> shut_udp_sockets(int family, int protocol);

}  // namespace icecore::sys
