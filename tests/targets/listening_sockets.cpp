// SPDX-License-Identifier: Apache-2.0
//
// State: sockets with names: TCP and unix(7) that listen, UDP and unix datagrams bound, with
// options; netlink; a TCP socket that is bound only, and one that is new; one whose connection has
// been reset; UDP sockets that are shut down.
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "target.hpp"

using namespace target;

static int make(int family, int type, int protocol = 0) {
  return static_cast<int>(must(::socket(family, type, protocol), "socket"));
}

static void set(int socket, int level, int name, int value) {
  must(::setsockopt(socket, level, name, &value, sizeof value), "setsockopt");
}

static int get(int socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  must(::getsockopt(socket, level, name, &value, &size), "getsockopt");
  return value;
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool operator==(const Address& other) const {
    return size == other.size && std::memcmp(&storage, &other.storage, size) == 0;
  }
};

static Address loopback() {
  Address address;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::memcpy(&address.storage, &in, sizeof in);
  address.size = sizeof in;
  return address;
}

static Address path(const std::string& name) {
  Address address;
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, name.data(), name.size());
  std::memcpy(&address.storage, &un, sizeof un);
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + 1);
  return address;
}

static Address name_of(int socket) {
  Address address;
  address.size = sizeof address.storage;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&address.storage), &address.size), "name");
  return address;
}

static void bind_to(int socket, const Address& address) {
  must(::bind(socket, address.get(), address.size), "bind");
}

/// Somebody connects, is accepted and understood.
static void expect_service(int listener, const Address& address) {
  const int client = make(address.storage.ss_family, SOCK_STREAM);
  must(::connect(client, address.get(), address.size), "connect");
  const int server = static_cast<int>(must(::accept(listener, nullptr, nullptr), "accept"));
  must(::write(client, "hello", 5), "write");
  char text[5];
  must(::read(server, text, 5), "read");
  require(std::string(text, 5) == "hello", "other words");
  const linger reset{.l_onoff = 1, .l_linger = 0};
  must(::setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), "SO_LINGER");
  ::close(client);
  ::close(server);
}

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  const int tcp = make(AF_INET, SOCK_STREAM | SOCK_NONBLOCK), bound = make(AF_INET, SOCK_STREAM);
  const int fresh = make(AF_INET6, SOCK_STREAM), udp = make(AF_INET, SOCK_DGRAM);
  const int connected = make(AF_INET, SOCK_DGRAM), unix_stream = make(AF_UNIX, SOCK_STREAM);
  const int unix_datagrams = make(AF_UNIX, SOCK_DGRAM), sender = make(AF_UNIX, SOCK_DGRAM);
  const int netlink = make(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  for (const int name : {SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE}) set(tcp, SOL_SOCKET, name, 1);
  set(tcp, IPPROTO_TCP, TCP_NODELAY, 1);
  set(tcp, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set(tcp, SOL_SOCKET, SO_RCVBUF, 50'000);
  set(fresh, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  set(udp, SOL_SOCKET, SO_BROADCAST, 1);
  const timeval patience{.tv_sec = 12, .tv_usec = 0};
  must(::setsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), "SO_RCVTIMEO");
  for (const int socket : {tcp, bound, udp}) bind_to(socket, loopback());
  const Address tcp_name = name_of(tcp), bound_name = name_of(bound), udp_name = name_of(udp);
  must(::listen(tcp, 7), "listen");
  must(::connect(connected, udp_name.get(), udp_name.size), "connect");
  const Address stream_name = path(folder + "/stream"), datagram_name = path(folder + "/datagrams");
  bind_to(unix_stream, stream_name);
  must(::listen(unix_stream, 3), "listen");
  must(::chmod((folder + "/stream").c_str(), 0612), "chmod");
  bind_to(unix_datagrams, datagram_name);
  bind_to(sender, path(folder + "/sender"));
  must(::connect(sender, datagram_name.get(), datagram_name.size), "connect");
  must(::send(sender, "from the sender", 15, 0), "send");
  sockaddr_nl groups{};
  groups.nl_family = AF_NETLINK;
  groups.nl_groups = RTMGRP_LINK;
  must(::bind(netlink, reinterpret_cast<const sockaddr*>(&groups), sizeof groups), "bind");
  constexpr int kLateGroup = RTNLGRP_NEXTHOP + 1;  // one that no address can name
  set(netlink, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, kLateGroup);
  const bool given_away = ::fchown(udp, 1, static_cast<gid_t>(-1)) == 0;  // where permitted

  // Two that are shut down, with a peer and without.
  const int mute = make(AF_INET, SOCK_DGRAM), deaf = make(AF_INET, SOCK_DGRAM);
  must(::connect(mute, udp_name.get(), udp_name.size), "connect");
  must(::shutdown(mute, SHUT_WR), "shutdown");
  bind_to(deaf, loopback());
  require(::shutdown(deaf, SHUT_RD) == -1 && errno == ENOTCONN, "shutdown");

  sockaddr_nl to{};
  to.nl_family = AF_NETLINK;
  to.nl_pid = 4711;
  const int to_somebody = make(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
  must(::connect(to_somebody, reinterpret_cast<const sockaddr*>(&to), sizeof to), "connect");

  // One whose peer has reset it.
  const int reset = make(AF_INET, SOCK_STREAM);
  must(::connect(reset, tcp_name.get(), tcp_name.size), "connect");
  {
    const int peer = static_cast<int>(must(::accept(tcp, nullptr, nullptr), "accept"));
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    must(::setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), "SO_LINGER");
    ::close(peer);
  }

  return serve([&] {
    require(name_of(tcp) == tcp_name && name_of(bound) == bound_name && name_of(udp) == udp_name,
            "another name");
    expect_service(tcp, tcp_name);
    expect_service(unix_stream, stream_name);
    for (const int name : {SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE})
      require(get(tcp, SOL_SOCKET, name) != 0, "option " + std::to_string(name));
    require(get(tcp, IPPROTO_TCP, TCP_NODELAY) == 1, "TCP_NODELAY");
    require(get(tcp, IPPROTO_TCP, TCP_KEEPIDLE) == 77, "TCP_KEEPIDLE");
    require(get(tcp, SOL_SOCKET, SO_RCVBUF) == 100'000, "SO_RCVBUF");
    require(get(tcp, SOL_SOCKET, SO_ACCEPTCONN) == 1, "SO_ACCEPTCONN");
    require(get(bound, SOL_SOCKET, SO_REUSEADDR) == 0, "SO_REUSEADDR");
    tcp_info info{};
    socklen_t size = sizeof info;
    must(::getsockopt(tcp, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
    require(info.tcpi_sacked == 7, "another backlog");
    require(get(fresh, IPPROTO_IPV6, IPV6_V6ONLY) == 1, "IPV6_V6ONLY");
    require(get(udp, SOL_SOCKET, SO_BROADCAST) == 1, "SO_BROADCAST");
    timeval time{};
    size = sizeof time;
    must(::getsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &time, &size), "SO_RCVTIMEO");
    require(time.tv_sec == 12, "SO_RCVTIMEO");

    must(::send(connected, "by UDP", 6, 0), "send");
    char text[16] = {};
    require(must(::recv(udp, text, sizeof text, 0), "recv") == 6, "another datagram");
    sockaddr_un from{};
    size = sizeof from;
    must(::recvfrom(unix_datagrams, text, sizeof text, MSG_DONTWAIT,
                    reinterpret_cast<sockaddr*>(&from), &size),
         "recvfrom");
    require(std::string(text, 15) == "from the sender", "another datagram");
    require(from.sun_path == folder + "/sender", "another sender");
    must(::send(sender, "from the sender", 15, 0), "send");
    struct ::stat file {};
    must(::stat((folder + "/stream").c_str(), &file), "stat");
    require((file.st_mode & 0777) == 0612, "another mode");

    sockaddr_nl own{};
    size = sizeof own;
    must(::getsockname(netlink, reinterpret_cast<sockaddr*>(&own), &size), "getsockname");
    require(own.nl_groups == RTMGRP_LINK, "another group");
    std::uint32_t groups[8] = {};
    size = sizeof groups;
    must(::getsockopt(netlink, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &size), "groups");
    require((groups[(kLateGroup - 1) / 32] >> ((kLateGroup - 1) % 32) & 1) == 1, "a group is lost");
    must(::fstat(udp, &file), "fstat");
    require(!given_away || file.st_uid == 1, "another owner of a socket");
    size = sizeof own;
    must(::getpeername(to_somebody, reinterpret_cast<sockaddr*>(&own), &size), "getpeername");
    require(own.nl_pid == 4711, "another peer of a netlink socket");
    require(::send(mute, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "it can send again");
    require(::recv(deaf, text, sizeof text, 0) == 0, "it can receive again");
    ::pollfd ended{reset, POLLIN | POLLRDHUP, 0};
    require(::poll(&ended, 1, 0) == 1 && (ended.revents & POLLHUP) != 0, "it is connected again");
  });
}
