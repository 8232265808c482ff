// SPDX-License-Identifier: Apache-2.0
//
// What sockets of all kinds have in common: their kind, their name, and their options, held against
// those of a socket that has just been made.
#include <linux/icmp.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "state/descriptors/sockets.hpp"

namespace icecore {
namespace {

struct KnownOption {
  int level;
  int name;
  bool late = false;         ///< has an effect on what waits in the socket
  bool unconnected = false;  ///< of a connection it tells what has been negotiated
};

constexpr int kPassPidfd = 76, kBufferLock = 72, kTimestampNew = 63, kTimestampNsNew = 64,
              kTimestampingNew = 65, kTxRehash = 74, kReserveMemory = 73, kPassRights = 83,
              kPreferBusyPoll = 69, kBusyPollBudget = 70, kLocalPortRange = 51, kTcpTxDelay = 37,
              kTcpInq = 36, kUdpSegment = 103, kUdpGro = 104, kUdpNoCheck6Tx = 101,
              kUdpNoCheck6Rx = 102, kUdpLiteSendCover = 10, kUdpLiteReceiveCover = 11;

constexpr std::array kOptions{
    KnownOption{SOL_SOCKET, SO_REUSEADDR},
    KnownOption{SOL_SOCKET, SO_REUSEPORT},
    KnownOption{SOL_SOCKET, SO_BINDTODEVICE},
    KnownOption{SOL_SOCKET, SO_MARK},
    KnownOption{SOL_SOCKET, SO_KEEPALIVE},
    KnownOption{SOL_SOCKET, SO_BROADCAST},
    KnownOption{SOL_SOCKET, SO_DONTROUTE},
    KnownOption{SOL_SOCKET, SO_NO_CHECK},
    KnownOption{SOL_SOCKET, SO_LINGER},
    KnownOption{SOL_SOCKET, SO_OOBINLINE},
    KnownOption{SOL_SOCKET, SO_RCVLOWAT},
    KnownOption{SOL_SOCKET, SO_RCVTIMEO},
    KnownOption{SOL_SOCKET, SO_SNDTIMEO},
    KnownOption{SOL_SOCKET, SO_TIMESTAMP},
    KnownOption{SOL_SOCKET, SO_TIMESTAMPNS},
    KnownOption{SOL_SOCKET, SO_TIMESTAMPING},
    KnownOption{SOL_SOCKET, kTimestampNew},
    KnownOption{SOL_SOCKET, kTimestampNsNew},
    KnownOption{SOL_SOCKET, kTimestampingNew},
    KnownOption{SOL_SOCKET, SO_RXQ_OVFL},
    KnownOption{SOL_SOCKET, SO_WIFI_STATUS},
    KnownOption{SOL_SOCKET, SO_SELECT_ERR_QUEUE},
    KnownOption{SOL_SOCKET, SO_BUSY_POLL},
    KnownOption{SOL_SOCKET, kPreferBusyPoll},
    KnownOption{SOL_SOCKET, kBusyPollBudget},
    KnownOption{SOL_SOCKET, SO_MAX_PACING_RATE},
    KnownOption{SOL_SOCKET, SO_ZEROCOPY},
    KnownOption{SOL_SOCKET, SO_TXTIME},
    KnownOption{SOL_SOCKET, kTxRehash},
    KnownOption{SOL_SOCKET, kReserveMemory},
    KnownOption{SOL_SOCKET, SO_PASSCRED},
    KnownOption{SOL_SOCKET, SO_PASSSEC},
    KnownOption{SOL_SOCKET, kPassPidfd},
    KnownOption{SOL_SOCKET, kPassRights, true},
    KnownOption{SOL_SOCKET, SO_PEEK_OFF, true},
    KnownOption{SOL_SOCKET, SO_LOCK_FILTER},
    KnownOption{IPPROTO_IP, IP_TOS},
    KnownOption{IPPROTO_IP, IP_TTL},
    KnownOption{IPPROTO_IP, IP_FREEBIND},
    KnownOption{IPPROTO_IP, IP_TRANSPARENT},
    KnownOption{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
    KnownOption{IPPROTO_IP, kLocalPortRange},
    KnownOption{IPPROTO_IP, IP_MULTICAST_TTL},
    KnownOption{IPPROTO_IP, IP_MULTICAST_LOOP},
    KnownOption{IPPROTO_IP, IP_MULTICAST_IF},
    KnownOption{IPPROTO_IP, IP_MULTICAST_ALL},
    KnownOption{IPPROTO_IP, IP_UNICAST_IF},
    KnownOption{IPPROTO_IP, IP_MTU_DISCOVER},
    KnownOption{IPPROTO_IP, IP_RECVERR},
    KnownOption{IPPROTO_IP, IP_PKTINFO},
    KnownOption{IPPROTO_IP, IP_RECVTTL},
    KnownOption{IPPROTO_IP, IP_RECVTOS},
    KnownOption{IPPROTO_IP, IP_RECVOPTS},
    KnownOption{IPPROTO_IP, IP_RECVORIGDSTADDR},
    KnownOption{IPPROTO_IP, IP_MINTTL},
    KnownOption{IPPROTO_IPV6, IPV6_V6ONLY},
    KnownOption{IPPROTO_IPV6, IPV6_FREEBIND},
    KnownOption{IPPROTO_IPV6, IPV6_TRANSPARENT},
    KnownOption{IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    KnownOption{IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
    KnownOption{IPPROTO_IPV6, IPV6_MULTICAST_LOOP},
    KnownOption{IPPROTO_IPV6, IPV6_MULTICAST_IF},
    KnownOption{IPPROTO_IPV6, IPV6_MULTICAST_ALL},
    KnownOption{IPPROTO_IPV6, IPV6_UNICAST_IF},
    KnownOption{IPPROTO_IPV6, IPV6_MTU_DISCOVER},
    KnownOption{IPPROTO_IPV6, IPV6_RECVERR},
    KnownOption{IPPROTO_IPV6, IPV6_RECVPKTINFO},
    KnownOption{IPPROTO_IPV6, IPV6_RECVHOPLIMIT},
    KnownOption{IPPROTO_IPV6, IPV6_RECVTCLASS},
    KnownOption{IPPROTO_IPV6, IPV6_RECVORIGDSTADDR},
    KnownOption{IPPROTO_IPV6, IPV6_TCLASS},
    KnownOption{IPPROTO_IPV6, IPV6_DONTFRAG},
    KnownOption{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL},
    KnownOption{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES},
    KnownOption{IPPROTO_IPV6, IPV6_MINHOPCOUNT},
    KnownOption{SOL_SOCKET, SO_PRIORITY},  // after IP_TOS, which sets it too
    KnownOption{IPPROTO_IP, IP_HDRINCL},
    KnownOption{IPPROTO_IP, IP_NODEFRAG},
    KnownOption{SOL_RAW, ICMP_FILTER},
    KnownOption{IPPROTO_ICMPV6, ICMP6_FILTER},
    KnownOption{SOL_RAW, IPV6_CHECKSUM},
    KnownOption{IPPROTO_UDPLITE, kUdpLiteSendCover},
    KnownOption{IPPROTO_UDPLITE, kUdpLiteReceiveCover},
    KnownOption{IPPROTO_TCP, TCP_NODELAY},
    KnownOption{IPPROTO_TCP, TCP_CORK, true},
    KnownOption{IPPROTO_TCP, TCP_KEEPIDLE},
    KnownOption{IPPROTO_TCP, TCP_KEEPINTVL},
    KnownOption{IPPROTO_TCP, TCP_KEEPCNT},
    KnownOption{IPPROTO_TCP, TCP_SYNCNT},
    KnownOption{IPPROTO_TCP, TCP_LINGER2},
    KnownOption{IPPROTO_TCP, TCP_DEFER_ACCEPT},
    KnownOption{IPPROTO_TCP, TCP_WINDOW_CLAMP, false, true},
    KnownOption{IPPROTO_TCP, TCP_MAXSEG, false, true},
    KnownOption{IPPROTO_TCP, TCP_USER_TIMEOUT},
    KnownOption{IPPROTO_TCP, TCP_CONGESTION},
    KnownOption{IPPROTO_TCP, TCP_FASTOPEN},
    KnownOption{IPPROTO_TCP, TCP_FASTOPEN_CONNECT},
    KnownOption{IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    KnownOption{IPPROTO_TCP, TCP_SAVE_SYN},
    KnownOption{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS},
    KnownOption{IPPROTO_TCP, kTcpInq},
    KnownOption{IPPROTO_TCP, kTcpTxDelay},
    KnownOption{IPPROTO_UDP, kUdpSegment},
    KnownOption{IPPROTO_UDP, kUdpGro},
    KnownOption{IPPROTO_UDP, kUdpNoCheck6Tx},
    KnownOption{IPPROTO_UDP, kUdpNoCheck6Rx},
    KnownOption{SOL_NETLINK, NETLINK_PKTINFO},
    KnownOption{SOL_NETLINK, NETLINK_BROADCAST_ERROR},
    KnownOption{SOL_NETLINK, NETLINK_NO_ENOBUFS},
    KnownOption{SOL_NETLINK, NETLINK_LISTEN_ALL_NSID},
    KnownOption{SOL_NETLINK, NETLINK_CAP_ACK},
    KnownOption{SOL_NETLINK, NETLINK_EXT_ACK},
    KnownOption{SOL_NETLINK, NETLINK_GET_STRICT_CHK},
};

/// What a stream socket has from the packets that made it, and does not let be set.
bool is_multicast(const KnownOption& option) {
  if (option.level == IPPROTO_IP)
    return option.name == IP_MULTICAST_TTL || option.name == IP_MULTICAST_LOOP ||
           option.name == IP_MULTICAST_IF || option.name == IP_MULTICAST_ALL;
  return option.level == IPPROTO_IPV6 &&
         (option.name == IPV6_MULTICAST_HOPS || option.name == IPV6_MULTICAST_LOOP ||
          option.name == IPV6_MULTICAST_IF || option.name == IPV6_MULTICAST_ALL);
}

/// Whose level a socket knows: others would answer for something else.
bool has_level(const sys::SocketKind& kind, int level) {
  switch (level) {
    case SOL_SOCKET:
      return true;
    case IPPROTO_IP:
      return kind.family == AF_INET || kind.family == AF_INET6;
    case IPPROTO_IPV6:
      return kind.family == AF_INET6;
    case SOL_NETLINK:
      return kind.family == AF_NETLINK;
    case SOL_RAW:
      return (kind.family == AF_INET || kind.family == AF_INET6) && kind.type == SOCK_RAW;
    case IPPROTO_ICMPV6:
      return kind.family == AF_INET6 && kind.type == SOCK_RAW && kind.protocol == level;
    default:
      return (kind.family == AF_INET || kind.family == AF_INET6) && kind.protocol == level &&
             kind.type != SOCK_RAW;
  }
}

std::unique_ptr<state::SocketOptionT> option(int level, int name, sys::Bytes value) {
  auto noted = std::make_unique<state::SocketOptionT>();
  noted->level = level;
  noted->name = name;
  noted->value = std::move(value);
  return noted;
}

sys::Bytes bytes_of(int value) {
  sys::Bytes bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

int integer(const sys::Bytes& bytes) {
  int value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

void refuse_what_cannot_be_read(const sys::Fd& socket, const sys::SocketKind& kind) {
  const auto refuse = [](const char* what) {
    throw Error{Errc::unsupported, fmt::format("socket: {}: cannot be snapshotted yet", what)};
  };
  if (has_level(kind, IPPROTO_TCP)) {
    const auto ulp = sys::socket_option(socket, IPPROTO_TCP, TCP_ULP);
    if (ulp && !ulp->empty() && ulp->front() != 0) refuse("has an upper layer (TCP_ULP, as TLS)");
  }
  if (has_level(kind, IPPROTO_UDP) && sys::integer_option(socket, IPPROTO_UDP, 1) != 0)
    refuse("holds data back (UDP_CORK)");
}

/// Before what locks it.
void capture_filter(const sys::Fd& socket,
                    std::vector<std::unique_ptr<state::SocketOptionT>>& options) {
  auto filter = sys::socket_filter(socket);
  if (!filter)
    throw Error{Errc::unsupported,
                "socket: has a filter of extended BPF (SO_ATTACH_BPF): cannot be snapshotted yet"};
  if (!filter->empty()) options.push_back(option(SOL_SOCKET, SO_ATTACH_FILTER, *std::move(filter)));
}

/// Buffers that the program has sized; the others are the kernel's.
void capture_buffers(const sys::Fd& socket,
                     std::vector<std::unique_ptr<state::SocketOptionT>>& options) {
  const auto lock = sys::socket_option(socket, SOL_SOCKET, kBufferLock);
  const int locked = lock ? integer(*lock) : 3;
  for (const auto& [name, bit] : {std::pair{SO_SNDBUF, 1}, std::pair{SO_RCVBUF, 2}})
    if ((locked & bit) != 0)
      options.push_back(
          option(SOL_SOCKET, name, bytes_of(sys::integer_option(socket, SOL_SOCKET, name))));
}

/// The kernel doubles what it is given.
void rebuild_buffer(const sys::Fd& socket, int name, int size) {
  const int forced = name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
  if (!sys::try_set_socket_option(socket, SOL_SOCKET, forced, bytes_of(size / 2)))
    sys::set_integer_option(socket, SOL_SOCKET, name, size / 2);
  if (const int got = sys::integer_option(socket, SOL_SOCKET, name); got != size)
    throw Error{Errc::permission,
                fmt::format("socket: a buffer of {} bytes instead of {}: needs CAP_NET_ADMIN, or a "
                            "higher limit in /proc/sys/net/core",
                            got, size)};
}

bool is_filter(const state::SocketOptionT& option) {
  return option.level == SOL_SOCKET && option.name == SO_ATTACH_FILTER;
}

void rebuild_option(const sys::Fd& socket, const state::SocketOptionT& option) {
  if (option.level == SOL_SOCKET && (option.name == SO_SNDBUF || option.name == SO_RCVBUF))
    return rebuild_buffer(socket, option.name, integer(option.value));
  if (is_filter(option)) return sys::set_socket_filter(socket, option.value);
  // A socket that was accepted has some from the one that listens, as IPV6_V6ONLY.
  if (sys::socket_option(socket, option.level, option.name) != option.value)
    sys::set_socket_option(socket, option.level, option.name, option.value);
}

/// A filter is there before anything may reach the socket from outside, but after what comes from
/// ourselves.
bool is_late(const state::SocketObjectT& object, const state::SocketOptionT& option) {
  if (is_filter(option) || (option.level == SOL_SOCKET && option.name == SO_LOCK_FILTER))
    return object.family == AF_UNIX || object.peer >= 0;
  if (option.level == SOL_SOCKET && (option.name == SO_SNDBUF || option.name == SO_RCVBUF))
    return option.name == SO_SNDBUF;
  const auto known = std::ranges::find_if(kOptions, [&](const KnownOption& k) {
    return k.level == option.level && k.name == option.name;
  });
  if (known == kOptions.end())
    throw Error{Errc::corrupt_image, fmt::format("the image sets option {} of level {} of a socket",
                                                 option.name, option.level)};
  return known->late;
}

}  // namespace

std::vector<std::unique_ptr<state::SocketOptionT>> capture_socket_options(
    const sys::Fd& socket, const sys::SocketKind& kind) {
  refuse_what_cannot_be_read(socket, kind);
  std::vector<std::unique_ptr<state::SocketOptionT>> options;
  const sys::Fd fresh = sys::make_socket(kind);
  const bool connected = !sys::remote_address(socket).empty() || sys::is_hung_up(socket);
  capture_filter(socket, options);
  for (const KnownOption& known : kOptions) {
    if (!has_level(kind, known.level) || (known.unconnected && connected) ||
        (kind.type == SOCK_STREAM && is_multicast(known)))
      continue;
    auto value = sys::socket_option(socket, known.level, known.name);
    if (value && value != sys::socket_option(fresh, known.level, known.name))
      options.push_back(option(known.level, known.name, *std::move(value)));
  }
  capture_buffers(socket, options);
  return options;
}

void rebuild_socket_options(const sys::Fd& socket, const state::SocketObjectT& object, bool late) {
  for (const auto& option : object.options)
    if (is_late(object, *option) == late) rebuild_option(socket, *option);
}

std::int32_t socket_index(DescriptorCapture& all, std::uint64_t inode) {
  const auto [at, fresh] =
      all.socket_index.try_emplace(inode, static_cast<std::int32_t>(all.sockets.size()));
  if (fresh) all.sockets.push_back(std::make_unique<state::SocketObjectT>());
  return at->second;
}

std::int32_t capture_socket(DescriptorCapture& all, const OpenDescription& open,
                            const sys::SocketKind& kind) {
  const std::int32_t index = socket_index(all, open.status.st_ino);
  state::SocketObjectT& object = object_at(all, index);
  object.family = kind.family;
  object.type = kind.type;
  object.protocol = kind.protocol;
  object.user = open.status.st_uid;
  object.local = sys::local_address(open.copy);
  object.options = capture_socket_options(open.copy, kind);
  return index;
}

sys::Fd make_socket_for(const state::SocketObjectT& object) {
  sys::Fd socket = sys::make_socket({object.family, object.type, object.protocol});
  if (sys::status(socket).st_uid != object.user) sys::change_owner(socket, object.user);
  rebuild_socket_options(socket, object, false);
  return socket;
}

sys::Fd rebuild_socket(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const auto& objects = all.process.descriptors->sockets;
  if (all.sockets.empty()) {
    all.sockets.resize(objects.size());
    rebuild_unix_sockets(all);
    rebuild_tcp_connections(all);
    for (std::size_t i = 0; i < objects.size(); ++i)
      if (objects[i]->family != AF_UNIX) rebuild_inet_socket(all, i);
  }
  const auto index = static_cast<std::size_t>(description.open.AsSocket()->socket);
  sys::Fd fd = sys::duplicate(all.sockets[index].get());
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace icecore
