// SPDX-License-Identifier: Apache-2.0
#include "sys/multicast.hpp"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "sys/call.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

template <class Address>
Bytes bytes_of_address(const Address& address) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&address);
  return {bytes, bytes + sizeof address};
}

void add_group(unsigned interface, Bytes address, std::vector<MulticastGroup>& groups) {
  std::array<char, IF_NAMESIZE> name{};
  if (::if_indextoname(interface, name.data()) == nullptr) return;  // it has just gone
  groups.push_back({name.data(), std::move(address)});
}

/// A line for each interface, and below it one for each of its groups, which begins with blanks.
void add_groups_of_ip(std::vector<MulticastGroup>& groups) {
  std::istringstream lines{readable_text("/proc/net/igmp")};
  unsigned interface = 0;
  std::string line;
  std::getline(lines, line);  // the heading
  while (std::getline(lines, line)) {
    if (!line.starts_with('\t')) {
      interface = static_cast<unsigned>(std::strtoul(line.c_str(), nullptr, 10));
      continue;
    }
    ::sockaddr_in address{};
    address.sin_family = AF_INET;
    // As it lies in memory.
    address.sin_addr.s_addr = static_cast<std::uint32_t>(std::strtoul(line.c_str(), nullptr, 16));
    add_group(interface, bytes_of_address(address), groups);
  }
}

/// "INDEX NAME GROUP …"
void add_groups_of_ipv6(std::vector<MulticastGroup>& groups) {
  std::istringstream lines{readable_text("/proc/net/igmp6")};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words{line};
    unsigned interface = 0;
    std::string name, digits;
    words >> interface >> name >> digits;
    ::sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    if (digits.size() != 2 * sizeof address.sin6_addr) continue;
    for (std::size_t i = 0; i < sizeof address.sin6_addr; ++i)
      address.sin6_addr.s6_addr[i] =
          static_cast<std::uint8_t>(std::strtoul(digits.substr(2 * i, 2).c_str(), nullptr, 16));
    add_group(interface, bytes_of_address(address), groups);
  }
}

int level_of(const MulticastGroup& group) {
  return group.address.size() == sizeof(::sockaddr_in) ? IPPROTO_IP : IPPROTO_IPV6;
}

constexpr std::size_t kFilterHeader = offsetof(::group_filter, gf_slist);
constexpr std::size_t kSourceRoom = sizeof(::sockaddr_storage);

/// struct group_filter with room for `sources`.
Bytes filter_for(const MulticastGroup& group, std::size_t sources) {
  ::group_filter header{};
  header.gf_interface = ::if_nametoindex(group.interface.c_str());
  std::memcpy(&header.gf_group, group.address.data(), group.address.size());
  header.gf_numsrc = static_cast<std::uint32_t>(sources);
  Bytes filter(kFilterHeader + sources * kSourceRoom);
  std::memcpy(filter.data(), &header, kFilterHeader);
  return filter;
}

::group_filter header_of(const Bytes& filter) {
  ::group_filter header{};
  std::memcpy(&header, filter.data(), kFilterHeader);
  return header;
}

bool try_read_filter(const Fd& socket, const MulticastGroup& group, Bytes& filter) {
  auto size = static_cast<::socklen_t>(filter.size());
  if (::getsockopt(socket.get(), level_of(group), MCAST_MSFILTER, filter.data(), &size) == 0)
    return true;
  if (errno == EADDRNOTAVAIL || errno == ENODEV || errno == ENOPROTOOPT) return false;
  throw_errno(errno, "read the multicast sources of a socket");
}

}  // namespace

std::vector<MulticastGroup> multicast_groups() {
  std::vector<MulticastGroup> groups;
  add_groups_of_ip(groups);
  add_groups_of_ipv6(groups);
  return groups;
}

std::optional<Membership> membership(const Fd& socket, const MulticastGroup& group) {
  Bytes filter = filter_for(group, 0);
  if (!try_read_filter(socket, group, filter)) return std::nullopt;
  const std::size_t sources = header_of(filter).gf_numsrc;
  if (sources != 0) {
    filter = filter_for(group, sources);
    if (!try_read_filter(socket, group, filter)) return std::nullopt;
  }
  Membership membership{.group = group,
                        .from_sources_only = header_of(filter).gf_fmode == MCAST_INCLUDE,
                        .sources = {}};
  for (std::size_t i = 0; i < sources; ++i) {
    const auto source =
        filter.begin() + static_cast<std::ptrdiff_t>(kFilterHeader + i * kSourceRoom);
    membership.sources.insert(membership.sources.end(), source,
                              source + static_cast<std::ptrdiff_t>(group.address.size()));
  }
  return membership;
}

void join(const Fd& socket, const Membership& membership) {
  const MulticastGroup& group = membership.group;
  ::group_req request{};
  request.gr_interface = ::if_nametoindex(group.interface.c_str());
  std::memcpy(&request.gr_group, group.address.data(), group.address.size());
  set_socket_option(socket, level_of(group), MCAST_JOIN_GROUP, bytes_of_address(request));
  if (!membership.from_sources_only && membership.sources.empty()) return;
  const std::size_t sources = membership.sources.size() / group.address.size();
  Bytes filter = filter_for(group, sources);
  ::group_filter header = header_of(filter);
  header.gf_fmode = membership.from_sources_only ? MCAST_INCLUDE : MCAST_EXCLUDE;
  std::memcpy(filter.data(), &header, kFilterHeader);
  for (std::size_t i = 0; i < sources; ++i)
    std::memcpy(filter.data() + kFilterHeader + i * kSourceRoom,
                membership.sources.data() + i * group.address.size(), group.address.size());
  set_socket_option(socket, level_of(group), MCAST_MSFILTER, filter);
}

bool has_interface(const std::string& name) { return ::if_nametoindex(name.c_str()) != 0; }

}  // namespace icecore::sys
