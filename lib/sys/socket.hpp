// SPDX-License-Identifier: Apache-2.0
#pragma once

// Sockets, by descriptors of our own that lead to those of another process.  What only their inodes
// tell: sock_diag.hpp.
//
// Kernel facts relied on here:
//  * SO_PEEK_OFF makes MSG_PEEK go through a queue, message by message; recvmsg stops at a message
//  with
//    descriptors.  A peek that brings descriptors brings new ones of the same open files.
//  * Connecting to the name of a socket of another type is EPROTOTYPE, to a name that no socket is
//  bound to
//    any more ECONNREFUSED; neither disturbs anybody.
//  * SO_PEERCRED names who made the pair, who listened, or who connected: so the process itself
//  does that.
//    listen(2) on a listening socket sets it anew.
//  * TCP_INFO of a listening socket has its backlog in tcpi_sacked.
//  * The size that getsockopt(2) is told and tells of a filter (SO_ATTACH_FILTER) counts
//  instructions,
//    not bytes; one of extended BPF is EACCES.
//  * A TCP connection that has ended polls as POLLERR only while it has an error (that it was
//  reset)
//    which nobody has been told.
//  * A socket that was never connected polls as hung up, but not as POLLRDHUP.
//  * The name of a socket of unix(7) is what was given to bind(2), also after its file has been
//  moved;
//    SIOCUNIXFILE (4.16) opens the file itself, and wants CAP_NET_ADMIN in the user namespace of
//    the socket's network.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/testament.hpp"

namespace icecore::sys {

using Bytes = std::vector<std::uint8_t>;

struct SocketKind {
  int family = 0;
  int type = 0;
  int protocol = 0;
  auto operator<=>(const SocketKind&) const = default;
};
SocketKind socket_kind(const Fd& socket);
Fd make_socket(const SocketKind& kind);

/// As getsockname(2) and getpeername(2) give them; empty when there is no peer.
Bytes local_address(const Fd& socket);
Bytes remote_address(const Fd& socket);

/// For people: "127.0.0.1 port 80", "/run/x", "@abstract".
std::string address_text(std::span<const std::uint8_t> address);
/// Of internet addresses; 0: none.
std::uint16_t port_of(std::span<const std::uint8_t> address);

/// The path of a unix address; empty for an abstract one, or none.
std::string path_of(std::span<const std::uint8_t> address);
/// True when it has a name at all.
bool has_name(std::span<const std::uint8_t> address);

/// The errno, or 0.
int try_bind(const Fd& socket, std::span<const std::uint8_t> address);
int try_connect(const Fd& socket, std::span<const std::uint8_t> address);
void bind(const Fd& socket, std::span<const std::uint8_t> address);
void connect(const Fd& socket, std::span<const std::uint8_t> address);
/// Of a connection of this machine with itself, which takes no time: after seconds without an
/// answer throws that a firewall may be in the way.
int try_connect_here(const Fd& socket, std::span<const std::uint8_t> address);
void listen(const Fd& socket, int backlog);
/// How: 1 read, 2 write, 3 both.  One without a peer is shut down too (which shutdown(2) does,
/// although it says ENOTCONN).
void shut_down(const Fd& socket, int how);

/// Nothing when sockets of this kind have no such option.
std::optional<Bytes> socket_option(const Fd& socket, int level, int name);
void set_socket_option(const Fd& socket, int level, int name, std::span<const std::uint8_t> value);
bool try_set_socket_option(const Fd& socket, int level, int name,
                           std::span<const std::uint8_t> value);
int integer_option(const Fd& socket, int level, int name);

/// The instructions of its filter (struct sock_filter); empty: it has none.  Nothing when it cannot
/// be read: it is one of extended BPF.
std::optional<Bytes> socket_filter(const Fd& socket);
void set_socket_filter(const Fd& socket, std::span<const std::uint8_t> instructions);

void set_integer_option(const Fd& socket, int level, int name, int value);

bool is_listening(const Fd& socket);

struct TcpState {
  int state = 0;  ///< TCP_CLOSE …
  std::uint32_t backlog = 0;
};
TcpState tcp_state(const Fd& socket);

/// What has gone over a TCP connection, in bytes; an end counts as a byte that was received.
struct TcpTraffic {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t unsent = 0;  ///< waits to be sent
};
TcpTraffic tcp_traffic(const Fd& socket);

/// What waits to be read from a stream, left in it.
Bytes peek_stream(const Fd& socket);
/// Sends all of it, as far as there is room for it within seconds.
void send_stream(const Fd& socket, std::span<const std::uint8_t> bytes);

/// Sends what there is room for, and says how much that is.
std::size_t send_at_once(const Fd& socket, std::span<const std::uint8_t> bytes);

/// When its last descriptor is closed the connection is reset, and leaves nothing behind.
void end_without_trace(const Fd& socket);

/// An internet address in one form, whatever the family of its socket: equal when they are the
/// same.
Bytes plain_address(std::span<const std::uint8_t> address);

/// The connection that came from `remote`; others that come in between are hung up.
Fd accept_from(const Fd& listener, std::span<const std::uint8_t> remote);

/// Bytes of memory that hold what it has sent and the other end has not read; 0: nothing is left.
int sent_and_not_read(const Fd& socket);

/// True when it was connected and the other side is gone.
bool is_hung_up(const Fd& socket);

/// True when its next call will be told of an error.
bool has_error(const Fd& socket);

/// True when something waits to be read.
bool has_input(const Fd& socket);

void change_owner(const Fd& file, uid_t user);

struct ConnectedPair {
  Fd first;
  Fd second;
};
ConnectedPair make_connected_pair(int type);

/// A connection to a socket of unix(7) made by ourselves; others that come in between are hung up.
Fd accept_own(const Fd& listener);

/// A TCP socket whose connection is over: `received` can be read from it still, then the end, or,
/// where `reset`, that it has been reset.
Fd make_hung_up_connection(int family, std::span<const std::uint8_t> received, bool reset);

/// Multicast groups of a netlink socket.
std::vector<std::uint32_t> netlink_groups(const Fd& socket);

/// True when two descriptors of ours lead to one open file description.
bool same_open_file(const Fd& a, const Fd& b);

/// Lets a socket send more than its buffer allows, for as long as this lives.
class RoomToSend {
 public:
  enum class When { at_once, later };
  /// `later`: from enlarge() on.
  explicit RoomToSend(const Fd& socket, When when = When::at_once);
  void enlarge();

  /// As it was; the destructor does so, too.
  void shrink() noexcept;

  /// What shrink() does.
  std::vector<LastCall> calls_back() const;
  RoomToSend(const RoomToSend&) = delete;
  RoomToSend& operator=(const RoomToSend&) = delete;
  ~RoomToSend() { shrink(); }

 private:
  const Fd& socket_;
  int half_;  // of the size, which setting it doubles
  int lock_;  // SO_BUF_LOCK: setting the size by hand sets it
};

// ---- what waits in a socket
// ----------------------------------------------------------------------

struct Credentials {
  pid_t pid = 0;
  uid_t user = 0;
  gid_t group = 0;
};

struct SocketMessage {
  Bytes bytes;
  Bytes from;  ///< address of the sender, if it has one
  std::vector<Fd> descriptors;
  std::optional<Credentials> credentials;
};

/// Everything, left where it is.
std::vector<SocketMessage> peek_messages(const Fd& socket);

/// Sends one, to `to` unless that is empty.
void send_message(const Fd& socket, std::span<const std::uint8_t> bytes,
                  std::span<const int> descriptors, const std::optional<Credentials>& credentials,
                  std::span<const std::uint8_t> to);

// ---- names of unix(7)
// ------------------------------------------------------------------------------

/// True when a socket is bound to this name, of type `type` or another.
bool name_is_alive(std::span<const std::uint8_t> address, int type);
/// The same of a path, which may be longer than an address.
bool file_is_alive(const std::string& path, int type);

/// The file that was made when the socket got its name (O_PATH), wherever it is now; none without
/// CAP_NET_ADMIN.
std::optional<Fd> try_open_file_of(const Fd& socket);

}  // namespace icecore::sys
