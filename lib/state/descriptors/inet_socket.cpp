// SPDX-License-Identifier: Apache-2.0
//
// Sockets of TCP, UDP and netlink(7) without a connection, listening ones included, and connections
// that have ended.  Who waits to be accepted is not kept: it is hung up when the snapshotted
// process ends. Nor are datagrams that wait, which UDP may lose at any time.
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "state/descriptors/sockets.hpp"
#include "sys/call.hpp"

namespace icecore {
namespace {

bool is_inet(int family) { return family == AF_INET || family == AF_INET6; }

bool is_tcp(const sys::SocketKind& kind) {
  return is_inet(kind.family) && kind.type == SOCK_STREAM && kind.protocol == IPPROTO_TCP;
}

bool is_udp(const sys::SocketKind& kind) {
  return is_inet(kind.family) && kind.type == SOCK_DGRAM && kind.protocol == IPPROTO_UDP;
}

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  if (!S_ISSOCK(open.status.st_mode) || !open.link.starts_with("socket:")) return false;
  const sys::SocketKind kind = sys::socket_kind(open.copy);
  if (kind.family == AF_UNIX) return false;
  // A connection as standard stream is the caller's to replace, as from inetd.
  return open.number > 2 || !is_tcp(kind) || sys::remote_address(open.copy).empty();
}

void capture_tcp(const OpenDescription& open, state::SocketObjectT& object) {
  const sys::TcpState tcp = sys::tcp_state(open.copy);
  switch (tcp.state) {
    case TCP_LISTEN:
      object.listening = true;
      object.backlog = tcp.backlog;
      return;
    case TCP_CLOSE:
      object.peer_gone = sys::is_hung_up(open.copy);
      return;
    default:
      throw Error{Errc::unsupported,
                  fmt::format("TCP connection from {} to {}: cannot be snapshotted yet",
                              sys::address_text(object.local),
                              sys::address_text(sys::remote_address(open.copy)))};
  }
}

void capture_netlink(const OpenDescription& open, state::SocketObjectT& object) {
  if (sys::has_input(open.copy))
    throw Error{Errc::unsupported,
                "netlink socket: messages wait in it: cannot be snapshotted yet"};
  object.groups = sys::netlink_groups(open.copy);
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  const sys::SocketKind kind = sys::socket_kind(open.copy);
  if (!is_tcp(kind) && !is_udp(kind) && kind.family != AF_NETLINK)
    throw Error{Errc::unsupported,
                fmt::format("socket of family {}, type {}, protocol {}: cannot be snapshotted yet",
                            kind.family, kind.type, kind.protocol)};
  state::SocketT reference;
  reference.socket = capture_socket(all, open, kind);
  state::SocketObjectT& object = object_at(all, reference.socket);
  if (is_tcp(kind)) capture_tcp(open, object);
  if (is_udp(kind)) object.remote = sys::remote_address(open.copy);
  if (kind.family == AF_NETLINK) capture_netlink(open, object);
  return opened(reference);
}

// ---- rebuilding ---------------------------------------------------------------------------------

sys::SocketKind kind_of(const state::SocketObjectT& object) {
  return {object.family, object.type, object.protocol};
}

/// The name may still be taken by connections that are ending, whatever the program allows.
int try_bind(const sys::Fd& socket, const state::SocketObjectT& object) {
  if (!is_tcp(kind_of(object))) return sys::try_bind(socket, object.local);
  const int before = sys::integer_option(socket, SOL_SOCKET, SO_REUSEADDR);
  if (before == 0) sys::set_integer_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  const int err = sys::try_bind(socket, object.local);
  if (before == 0) sys::set_integer_option(socket, SOL_SOCKET, SO_REUSEADDR, 0);
  return err;
}

void rebuild_netlink(const sys::Fd& socket, const state::SocketObjectT& object) {
  ::sockaddr_nl address{};
  std::memcpy(&address, object.local.data(), std::min(sizeof address, object.local.size()));
  if (address.nl_pid != 0 && sys::try_bind(socket, object.local) != 0) {
    address.nl_pid = 0;  // taken, as by the original: any other does as well
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&address);
    sys::bind(socket, {bytes, sizeof address});
  }
  for (const std::uint32_t group : object.groups)
    sys::set_integer_option(socket, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, static_cast<int>(group));
}

}  // namespace

void rebuild_inet_socket(DescriptorRebuild& all, std::size_t index) {
  const state::SocketObjectT& object = *all.process.descriptors->sockets[index];
  if (object.peer_gone) {
    all.sockets[index] = sys::make_hung_up_connection(object.family);
    rebuild_socket_options(all.sockets[index], object, false);
    return;
  }
  all.sockets[index] = make_socket_for(object);
  const sys::Fd& socket = all.sockets[index];
  if (object.family == AF_NETLINK) return rebuild_netlink(socket, object);
  if (sys::port_of(object.local) != 0)
    if (const int err = try_bind(socket, object); err != 0)
      sys::throw_errno(err, fmt::format("bind a socket to {}", sys::address_text(object.local)));
  if (!object.remote.empty()) sys::connect(socket, object.remote);
}

void check_inet_socket(const state::SocketObjectT& object, const std::string& who,
                       Refusals& refusals) {
  if (!is_inet(object.family) || object.peer_gone || sys::port_of(object.local) == 0) return;
  const sys::Fd probe = make_socket_for(object);
  const int err = try_bind(probe, object);
  const char* const protocol = is_tcp(kind_of(object)) ? "TCP" : "UDP";
  const std::string address = sys::address_text(object.local);
  if (err == EADDRINUSE)
    refusals.add_transient("{}: {} socket: {} is in use here: end the process that has it", who,
                           protocol, address);
  else if (err == EADDRNOTAVAIL)
    refusals.add("{}: {} socket: {} is no address of this machine", who, protocol, address);
  else if (err != 0)
    refusals.add("{}: {} socket: {}: {}", who, protocol, address, std::strerror(err));
}

const DescriptorRoom inet_socket_room{matches, capture, state::Open::Socket, rebuild_socket};

}  // namespace icecore
