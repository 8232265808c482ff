// SPDX-License-Identifier: Apache-2.0
//
// State: UDP sockets in multicast groups of the loopback interface: from anybody, from all but some
// sources, from some sources only; of IP and IPv6, by one socket of both; and one that is in none.
// What is sent to a group of IP reaches its members; IPv6 has no way there over that interface.
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "target.hpp"

using namespace target;

static int make(int family) {
  const int socket =
      static_cast<int>(must(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  const int no = 0;
  // Else whoever has the port hears what is sent to groups of others.
  must(::setsockopt(socket, IPPROTO_IP, IP_MULTICAST_ALL, &no, sizeof no), "IP_MULTICAST_ALL");
  if (family == AF_INET6)
    must(::setsockopt(socket, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &no, sizeof no), "MULTICAST_ALL");
  return socket;
}

static sockaddr_storage address(const char* text, in_port_t port = 0) {
  sockaddr_storage storage{};
  auto* const in = reinterpret_cast<sockaddr_in*>(&storage);
  auto* const in6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (::inet_pton(AF_INET, text, &in->sin_addr) == 1) {
    in->sin_family = AF_INET;
    in->sin_port = port;
    return storage;
  }
  *in6 = {};
  require(::inet_pton(AF_INET6, text, &in6->sin6_addr) == 1, "inet_pton");
  in6->sin6_family = AF_INET6;
  in6->sin6_port = port;
  in6->sin6_scope_id = ::if_nametoindex("lo");
  return storage;
}

static int level_of(const sockaddr_storage& group) {
  return group.ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
}

static void join(int socket, const char* text) {
  group_req request{};
  request.gr_interface = ::if_nametoindex("lo");
  request.gr_group = address(text);
  must(::setsockopt(socket, level_of(request.gr_group), MCAST_JOIN_GROUP, &request, sizeof request),
       std::string{"join "} + text);
}

/// MCAST_BLOCK_SOURCE, MCAST_JOIN_SOURCE_GROUP
static void choose(int socket, int what, const char* group, const char* source) {
  group_source_req request{};
  request.gsr_interface = ::if_nametoindex("lo");
  request.gsr_group = address(group);
  request.gsr_source = address(source);
  must(::setsockopt(socket, level_of(request.gsr_group), what, &request, sizeof request),
       std::string{"choose the sources of "} + group);
}

/// What the kernel says of the sources; empty of a socket that is not in the group.
static std::string sources(int socket, const char* text) {
  char bytes[1024] = {};
  group_filter filter{};
  filter.gf_interface = ::if_nametoindex("lo");
  filter.gf_group = address(text);
  filter.gf_numsrc = 4;
  std::memcpy(bytes, &filter, offsetof(group_filter, gf_slist));
  socklen_t size = sizeof bytes;
  if (::getsockopt(socket, level_of(filter.gf_group), MCAST_MSFILTER, bytes, &size) != 0) return {};
  return {bytes, size};
}

static in_port_t bind_to_any(int socket, int family) {
  sockaddr_storage name = address(family == AF_INET ? "0.0.0.0" : "::");
  if (family == AF_INET6) reinterpret_cast<sockaddr_in6*>(&name)->sin6_scope_id = 0;
  must(::bind(socket, reinterpret_cast<const sockaddr*>(&name), sizeof name), "bind");
  socklen_t size = sizeof name;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size), "getsockname");
  return reinterpret_cast<const sockaddr_in*>(&name)->sin_port;
}

static void send_to(const char* group, in_port_t port) {
  const sockaddr_storage to = address(group, port);
  const int sender = make(to.ss_family);
  if (to.ss_family == AF_INET) {
    ip_mreqn interface {};
    interface.imr_ifindex = static_cast<int>(::if_nametoindex("lo"));
    must(::setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface),
         "IP_MULTICAST_IF");
    const sockaddr_storage from = address("127.0.0.1");
    must(::bind(sender, reinterpret_cast<const sockaddr*>(&from), sizeof(sockaddr_in)), "bind");
  }
  must(::sendto(sender, "hello", 5, 0, reinterpret_cast<const sockaddr*>(&to),
                to.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6)),
       std::string{"send to "} + group);
  ::close(sender);
}

/// Whether what is sent to the group arrives; over the loopback interface it has when it is sent.
static bool hears(int socket, const char* group, in_port_t port) {
  send_to(group, port);
  char text[8];
  return ::recv(socket, text, sizeof text, MSG_DONTWAIT) == 5;
}

int main() {
  constexpr const char* kAnybody = "239.77.1.1";
  constexpr const char* kAllBut = "239.77.1.2";
  constexpr const char* kOnly = "239.77.1.3";
  constexpr const char* kOther = "239.77.1.4";
  constexpr const char* kIpv6 = "ff02::4d:1";
  constexpr const char* kIpv6Only = "ff02::4d:2";
  const int member = make(AF_INET), none = make(AF_INET), both = make(AF_INET6);
  const in_port_t port = bind_to_any(member, AF_INET), silent = bind_to_any(none, AF_INET);
  const in_port_t both_port = bind_to_any(both, AF_INET6);
  join(member, kAnybody);
  join(member, kAllBut);
  choose(member, MCAST_BLOCK_SOURCE, kAllBut, "127.0.0.1");
  choose(member, MCAST_BLOCK_SOURCE, kAllBut, "10.1.2.3");
  choose(member, MCAST_JOIN_SOURCE_GROUP, kOnly, "127.0.0.1");
  choose(member, MCAST_JOIN_SOURCE_GROUP, kOther, "10.1.2.3");
  join(both, kAnybody);
  join(both, kIpv6);
  choose(both, MCAST_JOIN_SOURCE_GROUP, kIpv6Only, "fd00::4d");
  const auto all_sources = [&] {
    std::vector<std::string> all;
    for (const int socket : {member, none, both})
      for (const char* group : {kAnybody, kAllBut, kOnly, kOther})
        all.push_back(sources(socket, group));
    for (const char* group : {kIpv6, kIpv6Only}) all.push_back(sources(both, group));
    return all;
  };
  const std::vector<std::string> before = all_sources();
  require(!before[0].empty() && !before.back().empty() && before[4].empty(), "no groups");
  return serve([&] {
    require(all_sources() == before, "other groups, or other sources");
    require(hears(member, kAnybody, port), "it does not hear its group");
    require(hears(member, kOnly, port), "it does not hear its source");
    require(!hears(member, kAllBut, port), "it hears whom it has excluded");
    require(!hears(member, kOther, port), "it hears whom it has not asked for");
    require(!hears(none, kAnybody, silent), "it hears a group that it is not in");
    require(hears(both, kAnybody, both_port), "a socket of IPv6 does not hear its group of IP");
  });
}
