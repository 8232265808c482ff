// SPDX-License-Identifier: Apache-2.0
//
// Sockets of TCP, UDP, UDP-Lite, ICMP ("ping"), raw(7) and netlink(7): listening, without a
// connection, with one that has ended; TCP connections of the process with itself, which are made
// anew, and with others, which go on if that is wanted.  Who waits to be accepted is not kept: it
// is hung up when the snapshotted process ends.  Nor are datagrams that wait, which UDP may lose at
// any time.
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

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

bool is_raw(const sys::SocketKind& kind) { return is_inet(kind.family) && kind.type == SOCK_RAW; }

/// Others of datagrams, which have a port, or what is one to them.
bool is_like_udp(const sys::SocketKind& kind) {
  const int icmp = kind.family == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  return is_inet(kind.family) && kind.type == SOCK_DGRAM &&
         (kind.protocol == IPPROTO_UDPLITE || kind.protocol == icmp);
}

const char* name_of(const sys::SocketKind& kind) {
  if (is_raw(kind)) return "raw";
  if (is_udp(kind)) return "UDP";
  if (!is_like_udp(kind)) return "TCP";
  return kind.protocol == IPPROTO_UDPLITE ? "UDP-Lite" : "ICMP";
}

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  if (!S_ISSOCK(open.status.st_mode) || !open.link.starts_with("socket:")) return false;
  const sys::SocketKind kind = sys::socket_kind(open.copy);
  if (kind.family == AF_UNIX) return false;
  // A connection as standard stream is the caller's to replace, as from inetd.
  return open.number > 2 || !is_tcp(kind) || sys::remote_address(open.copy).empty();
}

/// The same address with any port.
sys::Bytes without_port(sys::Bytes address) {
  // Of both families it follows the family.
  static_assert(offsetof(::sockaddr_in, sin_port) == offsetof(::sockaddr_in6, sin6_port));
  std::fill_n(address.begin() + offsetof(::sockaddr_in, sin_port), sizeof(::in_port_t),
              std::uint8_t{0});
  return address;
}

/// It belongs to whoever restores.
bool is_outside(const DescriptorCapture& all, int number) {
  return number <= 2 || std::ranges::count(all.capture.outside, number) != 0;
}

/// The descriptor that holds the other end, if the process does.
const FoundDescriptor* other_end(DescriptorCapture& all, const sys::Bytes& local,
                                 const sys::Bytes& remote) {
  if (!all.connections) {
    all.connections.emplace();
    for (const FoundDescriptor& found : all.found) {
      if (is_outside(all, found.number)) continue;
      if (!S_ISSOCK(found.status.st_mode) || !is_tcp(sys::socket_kind(found.copy))) continue;
      if (const auto to = sys::remote_address(found.copy); !to.empty())
        all.connections->try_emplace(
            {sys::plain_address(sys::local_address(found.copy)), sys::plain_address(to)}, &found);
    }
  }
  const auto found = all.connections->find({sys::plain_address(remote), sys::plain_address(local)});
  return found == all.connections->end() ? nullptr : found->second;
}

/// It has said that it will send no more.
bool has_ended(int tcp_state) {
  return tcp_state == TCP_FIN_WAIT1 || tcp_state == TCP_FIN_WAIT2 || tcp_state == TCP_CLOSING ||
         tcp_state == TCP_LAST_ACK;
}

void refuse_what_is_on_its_way(const sys::Fd& from, const sys::Fd& to) {
  const sys::TcpTraffic sent = sys::tcp_traffic(from), arrived = sys::tcp_traffic(to);
  const std::uint64_t end = has_ended(sys::tcp_state(from).state) ? 1 : 0;
  if (sent.unsent != 0 || (arrived.received != sent.sent && arrived.received != sent.sent + end))
    throw Error{Errc::unsupported,
                "TCP connection of the process with itself: more has been sent than the receiving "
                "end has room for: cannot be snapshotted yet; try again"};
}

/// All that may have to be read, each by a descriptor of our own.
std::vector<sys::Fd> connections_with_others(DescriptorCapture& all) {
  std::set<std::uint64_t> seen;  // inodes; first those that belong to whoever restores
  for (const FoundDescriptor& found : all.found)
    if (is_outside(all, found.number)) seen.insert(found.status.st_ino);
  std::vector<sys::Fd> connections;
  for (const FoundDescriptor& found : all.found) {
    if (!S_ISSOCK(found.status.st_mode) || !is_tcp(sys::socket_kind(found.copy))) continue;
    const sys::Bytes remote = sys::remote_address(found.copy);
    if (!remote.empty() && other_end(all, sys::local_address(found.copy), remote) == nullptr &&
        seen.insert(found.status.st_ino).second)
      connections.push_back(sys::duplicate(found.copy.get()));
  }
  return connections;
}

std::unique_ptr<state::TcpConnectionT> to_image(sys::TcpConnection&& connection) {
  auto noted = std::make_unique<state::TcpConnectionT>();
  noted->send_sequence = connection.send_sequence;
  noted->receive_sequence = connection.receive_sequence;
  noted->sent = std::move(connection.sent);
  noted->unsent = std::move(connection.unsent);
  noted->largest_segment = connection.largest_segment;
  noted->selective = connection.selective;
  noted->scaled = connection.scaled;
  noted->send_scale = connection.send_scale;
  noted->receive_scale = connection.receive_scale;
  noted->stamped = connection.stamped;
  noted->timestamp = connection.timestamp;
  noted->read_at_ms = connection.read_at_ms;
  noted->window_update = connection.window.last_update;
  noted->window_to_send = connection.window.to_send;
  noted->window_largest = connection.window.largest;
  noted->window_to_receive = connection.window.to_receive;
  noted->window_told_at = connection.window.told_at;
  noted->send_buffer = connection.send_buffer;
  noted->receive_buffer = connection.receive_buffer;
  return noted;
}

sys::TcpConnection from_image(const state::SocketObjectT& object) {
  const state::TcpConnectionT& noted = *object.connection;
  sys::TcpConnection connection{.send_sequence = noted.send_sequence,
                                .receive_sequence = noted.receive_sequence,
                                .received = object.received,
                                .sent = noted.sent,
                                .unsent = noted.unsent,
                                .largest_segment = noted.largest_segment,
                                .selective = noted.selective,
                                .scaled = noted.scaled,
                                .send_scale = noted.send_scale,
                                .receive_scale = noted.receive_scale,
                                .stamped = noted.stamped,
                                .timestamp = noted.timestamp,
                                .read_at_ms = noted.read_at_ms,
                                .window = {.last_update = noted.window_update,
                                           .to_send = noted.window_to_send,
                                           .largest = noted.window_largest,
                                           .to_receive = noted.window_to_receive,
                                           .told_at = noted.window_told_at},
                                .send_buffer = noted.send_buffer,
                                .receive_buffer = noted.receive_buffer};
  sys::assume_sent(connection);
  return connection;
}

void capture_outside(DescriptorCapture& all, const OpenDescription& open, int tcp_state,
                     std::int32_t index) {
  if (all.capture.tcp == TcpConnections::close) {
    object_at(all, index).peer_gone = true;
    return;
  }
  const sys::Bytes local = object_at(all, index).local, remote = sys::remote_address(open.copy);
  const std::string who = fmt::format("TCP connection from {} to {}", sys::address_text(local),
                                      sys::address_text(remote));
  if (all.capture.tcp == TcpConnections::refuse)
    throw Error{Errc::unsupported,
                fmt::format("{}: is kept only where that is asked for: --tcp established lets it "
                            "go on (with CAP_NET_ADMIN), with --tcp close the restored process "
                            "finds it reset",
                            who)};
  if (tcp_state != TCP_ESTABLISHED && tcp_state != TCP_CLOSE_WAIT && !has_ended(tcp_state))
    throw Error{Errc::unsupported, who + ": is ending: cannot be snapshotted; try again"};
  // Its place is taken by one that drops everything, while it is read and made.
  if (!sys::socket_filter(open.copy).value_or(sys::Bytes{}).empty())
    throw Error{Errc::unsupported,
                who + ": has a filter (SO_ATTACH_FILTER): cannot be kept established"};
  auto& held = all.capture.held_connections;
  if (!held) held.emplace(connections_with_others(all), all.capture.is_last);
  sys::TcpConnection connection = held->read(open.copy);
  state::SocketObjectT& object = object_at(all, index);
  object.remote = remote;
  object.received = std::move(connection.received);
  object.connection = to_image(std::move(connection));
  if (has_ended(tcp_state)) object.shut |= 2;
  if (sys::is_hung_up(open.copy)) object.shut |= 1;
}

void capture_connection(DescriptorCapture& all, const OpenDescription& open, int tcp_state,
                        std::int32_t index) {
  const sys::Bytes local = object_at(all, index).local, remote = sys::remote_address(open.copy);
  const FoundDescriptor* const other = other_end(all, local, remote);
  if (other == nullptr) return capture_outside(all, open, tcp_state, index);
  all.capture.own_connections.push_back(sys::duplicate(open.copy.get()));
  refuse_what_is_on_its_way(open.copy, other->copy);
  refuse_what_is_on_its_way(other->copy, open.copy);
  const std::int32_t peer = socket_index(all, other->status.st_ino);
  state::SocketObjectT& object = object_at(all, index);
  object.remote = remote;
  object.peer = peer;
  object.accepted = index < peer;  // either end may be
  object.received = sys::peek_stream(open.copy);
  if (has_ended(tcp_state)) object.shut |= 2;
  if (tcp_state == TCP_ESTABLISHED && sys::is_hung_up(open.copy)) object.shut |= 1;
}

void capture_tcp(DescriptorCapture& all, const OpenDescription& open, std::int32_t index) {
  state::SocketObjectT& object = object_at(all, index);
  const sys::TcpState tcp = sys::tcp_state(open.copy);
  switch (tcp.state) {
    case TCP_LISTEN:
      object.listening = true;
      object.backlog = tcp.backlog;
      return;
    case TCP_CLOSE:
      object.peer_gone = sys::is_hung_up(open.copy);
      if (!object.peer_gone) return;
      object.ended = !sys::has_error(open.copy);
      object.received = sys::peek_stream(open.copy);
      return;
    case TCP_SYN_SENT:
    case TCP_SYN_RECV:
      throw Error{Errc::unsupported,
                  "TCP connection that is being made: cannot be snapshotted; try again"};
    default:
      return capture_connection(all, open, tcp.state, index);
  }
}

/// One that the process has just sent to itself is not the network's to lose.
void refuse_own_datagrams(const DescriptorCapture& all, const OpenDescription& open,
                          const sys::SocketKind& kind) {
  if (!sys::has_input(open.copy)) return;
  std::set<std::uint16_t> ports;
  for (const FoundDescriptor& found : all.found)
    if (S_ISSOCK(found.status.st_mode) && sys::socket_kind(found.copy).protocol == kind.protocol)
      ports.insert(sys::port_of(sys::local_address(found.copy)));
  for (const sys::SocketMessage& message : sys::peek_messages(open.copy))
    if (ports.contains(sys::port_of(message.from)))
      throw Error{Errc::unsupported,
                  fmt::format("{} socket: a datagram that the process has sent to itself waits in "
                              "it: cannot be snapshotted yet; try again",
                              name_of(kind))};
}

/// Of those that are not asked for how they are shut down.
void refuse_shut_down(const OpenDescription& open, const sys::SocketKind& kind) {
  if (sys::is_hung_up(open.copy))
    throw Error{Errc::unsupported, fmt::format("{} socket: is shut down for reading: cannot be "
                                               "snapshotted yet",
                                               name_of(kind))};
}

/// An address that a new socket would not get here.
bool is_free_address(const state::SocketObjectT& object, const sys::SocketKind& kind) {
  sys::Bytes address = object.local;
  if (kind.type != SOCK_RAW) address = without_port(std::move(address));
  return sys::try_bind(sys::make_socket(kind), address) == EADDRNOTAVAIL;
}

void capture_memberships(DescriptorCapture& all, const OpenDescription& open,
                         state::SocketObjectT& object) {
  if (!all.multicast_groups) all.multicast_groups = sys::multicast_groups();
  for (const sys::MulticastGroup& group : *all.multicast_groups) {
    if (object.family == AF_INET && group.address.size() != sizeof(::sockaddr_in)) continue;
    auto found = sys::membership(open.copy, group);
    if (!found) continue;
    auto membership = std::make_unique<state::MembershipT>();
    membership->interface = group.interface;
    membership->group = group.address;
    membership->from_sources_only = found->from_sources_only;
    membership->sources = std::move(found->sources);
    object.memberships.push_back(std::move(membership));
  }
}

void capture_netlink(const OpenDescription& open, state::SocketObjectT& object) {
  if (sys::has_input(open.copy))
    throw Error{Errc::unsupported,
                "netlink socket: messages wait in it: cannot be snapshotted yet"};
  object.groups = sys::netlink_groups(open.copy);
  object.remote = sys::remote_address(open.copy);  // all zero: the kernel
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  const sys::SocketKind kind = sys::socket_kind(open.copy);
  if (!is_tcp(kind) && !is_udp(kind) && !is_like_udp(kind) && !is_raw(kind) &&
      kind.family != AF_NETLINK)
    throw Error{Errc::unsupported,
                fmt::format("socket of family {}, type {}, protocol {}: cannot be snapshotted yet",
                            kind.family, kind.type, kind.protocol)};
  state::SocketT reference;
  reference.socket = capture_socket(all, open, kind);
  state::SocketObjectT& object = object_at(all, reference.socket);
  if (is_inet(kind.family)) object.free_address = is_free_address(object, kind);
  if (is_tcp(kind)) {
    capture_tcp(all, open, reference.socket);
    return opened(reference);
  }
  if (is_udp(kind) || is_like_udp(kind) || is_raw(kind)) {
    capture_memberships(all, open, object);
    object.remote = sys::remote_address(open.copy);
  }
  if (is_udp(kind) || is_like_udp(kind)) refuse_own_datagrams(all, open, kind);
  const bool is_told = is_udp(kind) || (is_like_udp(kind) && kind.protocol == IPPROTO_UDPLITE);
  if (is_raw(kind) || (is_like_udp(kind) && !is_told)) refuse_shut_down(open, kind);
  if (is_told) {
    auto [shut, first] = all.shut_udp_sockets.try_emplace({kind.family, kind.protocol});
    if (first) shut->second = sys::shut_udp_sockets(kind.family, kind.protocol);
    if (const auto how = shut->second.find(open.status.st_ino); how != shut->second.end())
      object.shut = static_cast<std::uint8_t>(how->second);
  }
  if (kind.family == AF_NETLINK) capture_netlink(open, object);
  return opened(reference);
}

// ---- rebuilding ---------------------------------------------------------------------------------

sys::SocketKind kind_of(const state::SocketObjectT& object) {
  return {object.family, object.type, object.protocol};
}

bool has_option(const state::SocketObjectT& object, int level, int name) {
  return std::ranges::any_of(object.options, [&](const auto& option) {
    return option->level == level && option->name == name;
  });
}

/// Where nobody has to have the address: what the kernel tells of that option is not the program's.
class FreeAddress {
 public:
  FreeAddress(const sys::Fd& socket, const state::SocketObjectT& object)
      : socket_(socket),
        needed_(object.free_address && !has_option(object, IPPROTO_IP, IP_FREEBIND)) {
    if (needed_) sys::set_integer_option(socket_, IPPROTO_IP, IP_FREEBIND, 1);
  }
  FreeAddress(const FreeAddress&) = delete;
  FreeAddress& operator=(const FreeAddress&) = delete;
  ~FreeAddress() {
    constexpr std::array<std::uint8_t, sizeof(int)> kOff{};
    if (needed_) sys::try_set_socket_option(socket_, IPPROTO_IP, IP_FREEBIND, kOff);
  }

 private:
  const sys::Fd& socket_;
  bool needed_;
};

/// It takes a name for itself, where a connection comes with one.
bool takes_name(const state::SocketObjectT& object) {
  return (is_tcp(kind_of(object)) || is_udp(kind_of(object)) || is_like_udp(kind_of(object))) &&
         !object.connection && object.peer < 0 && !object.peer_gone &&
         sys::port_of(object.local) != 0;
}

/// Another one of the process has its port: both have allowed that once, which may not show any
/// more.
bool shares_port(const state::DescriptorsT& image, const state::SocketObjectT& object) {
  return takes_name(object) && std::ranges::any_of(image.sockets, [&](const auto& other) {
           return other.get() != &object && takes_name(*other) &&
                  other->protocol == object.protocol &&
                  sys::port_of(other->local) == sys::port_of(object.local);
         });
}

/// The name may still be taken by connections that are ending, whatever the program allows, or by
/// another one of the process (`shared`).  What is allowed here settle_sockets() takes back, once
/// listen(2) has asked for the name once more.
int try_bind(const sys::Fd& socket, const state::SocketObjectT& object, bool shared) {
  const bool tcp = is_tcp(kind_of(object));
  const bool reused = has_option(object, SOL_SOCKET, SO_REUSEADDR);
  const auto allow = [&](int option) {
    if (!has_option(object, SOL_SOCKET, option))
      sys::set_integer_option(socket, SOL_SOCKET, option, 1);
  };
  if (tcp || shared) allow(SO_REUSEADDR);
  if (shared && (tcp || !reused)) allow(SO_REUSEPORT);
  const int err = [&] {
    const FreeAddress free{socket, object};
    return sys::try_bind(socket, object.local);
  }();
  if (tcp && !shared && !reused && !object.listening)
    sys::set_integer_option(socket, SOL_SOCKET, SO_REUSEADDR, 0);
  return err;
}

struct Connection {
  sys::Fd client;
  sys::Fd server;
};

/// Nothing when what is left of the original connection is in the way for a moment (TIME_WAIT).
std::optional<Connection> try_connect(const state::SocketObjectT& client,
                                      const state::SocketObjectT& server) {
  const auto bound = [](sys::Fd socket, const state::SocketObjectT& object) {
    sys::set_integer_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    sys::bind(socket, object.local);
    return socket;
  };
  const sys::Fd listener = bound(sys::make_socket(kind_of(server)), server);
  sys::listen(listener, 8);
  Connection made{.client = bound(make_socket_for(client), client), .server = {}};
  if (const int err = sys::try_connect_here(made.client, client.remote); err == EADDRNOTAVAIL)
    return std::nullopt;
  else if (err != 0)
    sys::throw_errno(err, fmt::format("connect a socket to {}", sys::address_text(client.remote)));
  made.server = sys::accept_from(listener, client.local);
  if (sys::status(made.server).st_uid != server.user) sys::change_owner(made.server, server.user);
  rebuild_socket_options(made.server, server, false);
  // Until all names are taken: who listens needs the same one.
  sys::set_integer_option(made.server, SOL_SOCKET, SO_REUSEADDR, 1);
  return made;
}

/// Which end connects does not show.  The one that closed first is in the way of one of the two,
/// for a second.
Connection make_connection(const state::SocketObjectT& client, const state::SocketObjectT& server) {
  constexpr std::chrono::milliseconds kPause{20};
  constexpr int kAttempts = 150;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (auto made = try_connect(client, server)) return std::move(*made);
    if (auto made = try_connect(server, client))
      return {.client = std::move(made->server), .server = std::move(made->client)};
    std::this_thread::sleep_for(kPause);
  }
  throw Error{Errc::io,
              fmt::format("TCP connection from {} to {}: is in use here",
                          sys::address_text(client.local), sys::address_text(server.local))};
}

void rebuild_memberships(const sys::Fd& socket, const state::SocketObjectT& object) {
  for (const auto& membership : object.memberships)
    sys::join(socket, {.group = {membership->interface, membership->group},
                       .from_sources_only = membership->from_sources_only,
                       .sources = membership->sources});
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
  ::sockaddr_nl remote{};
  std::memcpy(&remote, object.remote.data(), std::min(sizeof remote, object.remote.size()));
  if (remote.nl_pid != 0 || remote.nl_groups != 0) sys::connect(socket, object.remote);
}

std::string connection_text(const state::SocketObjectT& object) {
  return fmt::format("TCP connection from {} to {}", sys::address_text(object.local),
                     sys::address_text(object.remote));
}

bool goes_on(const state::SocketObjectT& object, const RestoreOptions& options) {
  return object.connection && options.tcp == TcpConnections::established;
}

void check_connection(const state::SocketObjectT& object, const RestoreOptions& options,
                      const std::string& who, Refusals& refusals) {
  const std::string what = who + ": " + connection_text(object);
  if (options.tcp == TcpConnections::refuse)
    return refusals.add(
        "{}: goes on only where that is asked for: --tcp established, or --tcp "
        "close to find it reset",
        what);
  if (options.tcp != TcpConnections::established) return;
  try {
    const sys::Fd probe = make_socket_for(object);
    const int err = sys::try_repair(probe, object.local, object.remote, from_image(object));
    if (err == 0) return;
    // bind(2) takes every port then, so it is about the address if there is none.
    const sys::Fd plain = sys::make_socket(kind_of(object));
    if (err == EADDRNOTAVAIL && sys::try_bind(plain, without_port(object.local)) == EADDRNOTAVAIL)
      refusals.add("{}: {} is no address of this machine", what, sys::address_text(object.local));
    else if (err == EADDRNOTAVAIL || err == EADDRINUSE)
      refusals.add_transient("{}: is in use here: end the process that has it", what);
    else
      refusals.add("{}: {}", what, std::strerror(err));
  } catch (const Error& error) {
    refusals.add("{}: {}", what, error.what());
  }
}

}  // namespace

bool is_found_reset(const state::SocketObjectT& object, const RestoreOptions& options) {
  return object.peer_gone || (object.connection && !goes_on(object, options));
}

void rebuild_tcp_connections(DescriptorRebuild& all) {
  const auto& objects = all.process.descriptors->sockets;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (!goes_on(*objects[i], all.options)) continue;
    all.sockets[i] = make_socket_for(*objects[i]);
    if (const int err = sys::try_repair(all.sockets[i], objects[i]->local, objects[i]->remote,
                                        from_image(*objects[i]));
        err != 0)
      sys::throw_errno(err, connection_text(*objects[i]));
  }
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (objects[i]->family == AF_UNIX || objects[i]->peer < 0 || !objects[i]->accepted) continue;
    const auto peer = static_cast<std::size_t>(objects[i]->peer);
    Connection made = make_connection(*objects[peer], *objects[i]);
    all.sockets[i] = std::move(made.server);
    all.sockets[peer] = std::move(made.client);
  }
}

void fill_tcp_connection(DescriptorRebuild& all, std::size_t index) {
  const state::SocketObjectT& object = *all.process.descriptors->sockets[index];
  if (object.family == AF_UNIX || object.peer < 0) return;
  const sys::Fd& sender = all.sockets[static_cast<std::size_t>(object.peer)];
  const sys::RoomToSend room{sender};
  sys::send_stream(sender, object.received);
}

void settle_sockets(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions) {
  for (std::size_t i = 0; i < descriptions.size(); ++i) {
    if (!descriptions[i] || image.descriptions[i]->open.type != state::Open::Socket) continue;
    const state::SocketObjectT& object = object_of(image, *image.descriptions[i]);
    const bool shared = shares_port(image, object);
    const bool reused = is_tcp(kind_of(object)) && (object.listening || object.peer >= 0);
    const auto take_back = [&](int option) {
      if (!has_option(object, SOL_SOCKET, option))
        sys::set_integer_option(descriptions[i], SOL_SOCKET, option, 0);
    };
    if (reused || shared) take_back(SO_REUSEADDR);
    if (shared) take_back(SO_REUSEPORT);
  }
}

void rebuild_inet_socket(DescriptorRebuild& all, std::size_t index) {
  const state::SocketObjectT& object = *all.process.descriptors->sockets[index];
  if (object.peer >= 0 || goes_on(object, all.options)) return;  // made with its connection
  if (is_found_reset(object, all.options)) {
    all.sockets[index] = sys::make_hung_up_connection(
        object.family, object.peer_gone ? object.received : sys::Bytes{}, !object.ended);
    rebuild_socket_options(all.sockets[index], object, false);
    return;
  }
  all.sockets[index] = make_socket_for(object);
  const sys::Fd& socket = all.sockets[index];
  if (object.family == AF_NETLINK) return rebuild_netlink(socket, object);
  // Before it has a name: nothing may reach it that its sources exclude.
  rebuild_memberships(socket, object);
  if (sys::port_of(object.local) != 0)
    if (const int err = try_bind(socket, object, shares_port(*all.process.descriptors, object));
        err != 0)
      sys::throw_errno(err, fmt::format("bind a socket to {}", sys::address_text(object.local)));
  if (!object.remote.empty()) sys::connect(socket, object.remote);
}

void release_tcp_connections(const state::DescriptorsT& image,
                             const std::vector<sys::Fd>& descriptions,
                             const RestoreOptions& options) {
  for (std::size_t i = 0; i < descriptions.size(); ++i) {
    if (!descriptions[i] || image.descriptions[i]->open.type != state::Open::Socket) continue;
    const state::SocketObjectT& object = object_of(image, *image.descriptions[i]);
    if (goes_on(object, options))
      sys::let_talk(descriptions[i], from_image(object),
                    has_option(object, SOL_SOCKET, SO_REUSEADDR), (object.shut & 2) != 0);
  }
}

void check_inet_socket(const state::SocketObjectT& object, const RestoreOptions& options,
                       const std::string& who, Refusals& refusals) {
  if (object.connection) return check_connection(object, options, who, refusals);
  for (const auto& membership : object.memberships)
    if (!sys::has_interface(membership->interface))
      refusals.add("{}: UDP socket: in a multicast group of the interface {}, which is not here",
                   who, membership->interface);
  if (!is_inet(object.family) || object.peer_gone || sys::port_of(object.local) == 0) return;
  const sys::Fd probe = make_socket_for(object);
  const int err = try_bind(probe, object, false);
  const char* const protocol = name_of(kind_of(object));
  const std::string address = sys::address_text(object.local);
  if (err == EADDRINUSE)
    refusals.add_transient(
        "{}: {} socket: {} is in use here: end the process that has it{}", who, protocol, address,
        is_tcp(kind_of(object)) ? ", or wait a minute for a connection to end" : "");
  else if (err == EADDRNOTAVAIL)
    refusals.add("{}: {} socket: {} is no address of this machine", who, protocol, address);
  else if (err != 0)
    refusals.add("{}: {} socket: {}: {}", who, protocol, address, std::strerror(err));
}

const DescriptorRoom inet_socket_room{matches, capture, state::Open::Socket, rebuild_socket};

}  // namespace icecore
