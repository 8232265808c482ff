// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace icecore {

/// Connections of TCP whose other end another process has.
enum class TcpConnections {
  refuse,       ///< each is named, and nothing is done
  close,        ///< the restored process finds them reset by the other side
  established,  ///< they go on where they were; needs CAP_NET_ADMIN
};

}  // namespace icecore
