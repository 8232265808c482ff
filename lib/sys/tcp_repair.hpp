// SPDX-License-Identifier: Apache-2.0
#pragma once

// Established TCP connections, read from one socket and put into another without a packet being
// sent: TCP_REPAIR.
//
// Kernel facts relied on here (seen on 6.18):
//  * TCP_REPAIR needs CAP_NET_ADMIN in the user namespace that owns the network, and belongs to the
//    socket, not to whoever set it: a process that has such a socket cannot send or receive.
//    Setting it, either way, overwrites SO_REUSEADDR.
//  * A socket in repair mode still takes and acknowledges what arrives.  One with a socket filter
//    that lets nothing through does not: whoever sends tries again.
//  * One that is closed in repair mode sends neither FIN nor RST.
//  * Of TCP_QUEUE_SEQ, that of the receive queue is the next byte that is expected, that of the
//  send
//    queue the one after the last that was written; both count the end of a direction as a byte.
//  * In repair mode TCP_MAXSEG is what the peer allowed (mss_clamp).
//  * bind(2) in repair mode takes any port of an address of this machine; connect(2) is
//    EADDRNOTAVAIL where a connection between the two has that name already.
//  * TCP_REPAIR_OPTIONS has to follow connect(2), TCP_QUEUE_SEQ to precede it.
//  * What is written to the send queue in repair mode counts as sent.
//  * Bit 0 of TCP_TIMESTAMP tells that the clock of the connection counts microseconds.

#include <cstdint>
#include <span>
#include <vector>

#include "sys/fd.hpp"
#include "sys/socket.hpp"
#include "sys/testament.hpp"

namespace icecore::sys {

/// As struct tcp_repair_window.
struct TcpWindow {
  std::uint32_t last_update = 0;  ///< snd_wl1
  std::uint32_t to_send = 0;      ///< snd_wnd
  std::uint32_t largest = 0;      ///< max_window
  std::uint32_t to_receive = 0;   ///< rcv_wnd
  std::uint32_t told_at = 0;      ///< rcv_wup
};

/// Everything that the two ends have agreed upon, and what is under way.
struct TcpConnection {
  std::uint32_t send_sequence = 0;     ///< of the first byte of `sent`
  std::uint32_t receive_sequence = 0;  ///< of the first byte of `received`
  Bytes received;                      ///< and not read yet
  Bytes sent;                          ///< and not acknowledged yet
  Bytes unsent;
  std::uint16_t largest_segment = 0;
  bool selective = false;  ///< SACK
  bool scaled = false;     ///< windows
  std::uint8_t send_scale = 0;
  std::uint8_t receive_scale = 0;
  bool stamped = false;
  std::uint32_t timestamp = 0;
  std::uint64_t read_at_ms = 0;  ///< CLOCK_REALTIME
  TcpWindow window;
  std::uint32_t send_buffer = 0;  ///< bytes, as SO_SNDBUF tells
  std::uint32_t receive_buffer = 0;
};

/// Counts what the peer has room for as sent: a connection that has been read may go on to send
/// (one that is paced, by a timer) until its process is dead, and never hears anything again whose
/// peer acknowledges what it does not know to have sent.  What was not sent is sent again as if it
/// had been lost.
void assume_sent(TcpConnection& connection);

/// Connections of a process that stands still, while they are read.
///
/// Whatever becomes of us, they work on: should we be killed, a testament takes them out of repair.
class HeldConnections {
 public:
  /// All that read() may be asked for.  `deaf`: once one is read nothing more arrives at it until
  /// this ends, so that nothing is acknowledged that read() has not seen.
  HeldConnections(std::vector<Fd> sockets, bool deaf);
  HeldConnections(const HeldConnections&) = delete;
  HeldConnections& operator=(const HeldConnections&) = delete;
  ~HeldConnections();

  /// In repair mode for as long as it takes.  Throws when it cannot be.
  TcpConnection read(const Fd& socket) const;

  /// From now on the end of the process tells the peers nothing.
  void fall_silent();
  /// The process has been killed: they stay silent when their last descriptor is closed.
  void forget() noexcept {
    forgotten_ = true;
    testament_.settle(~std::size_t{0});
  }

 private:
  struct Held {
    Fd socket;
    int reuse = 0;  ///< SO_REUSEADDR
  };
  static std::vector<Held> hold(std::vector<Fd> sockets);
  static std::vector<LastCall> last_calls(const std::vector<Held>& held);

  std::vector<Held> held_;
  Testament testament_;
  bool deaf_;
  bool silent_ = false;
  bool forgotten_ = false;
};

/// Makes a socket that has its options and no name one end of the connection.  Nothing is sent, and
/// nothing arrives, before let_talk().  Closing it before that tells the peer nothing.
/// Returns the errno of bind(2) or connect(2), or 0.  Throws where TCP_REPAIR is not permitted.
int try_repair(const Fd& socket, std::span<const std::uint8_t> local,
               std::span<const std::uint8_t> remote, const TcpConnection& connection);

/// Lets it go on: what was not sent is sent.  `end`: and then the end of that direction.
void let_talk(const Fd& socket, const TcpConnection& connection, bool reuse_address, bool end);

}  // namespace icecore::sys
