// SPDX-License-Identifier: Apache-2.0
//
// State: sockets that filter, of classic BPF, one of which may not be changed any more; without
// checksums; bound to an address that is not there; UDP-Lite, raw(7), and one for ICMP where
// permitted.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <netinet/in.h>
#include <sys/socket.h>

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

static std::string filter_of(int socket) {
  socklen_t instructions = 0;
  must(::getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, nullptr, &instructions), "filter");
  std::string bytes(instructions * sizeof(sock_filter), '\0');
  must(::getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, bytes.data(), &instructions), "filter");
  return bytes;
}

/// Lets nothing through that does not begin with 'y'; `padding` makes it longer.
static void filter(int socket, std::uint32_t offset, std::size_t padding) {
  std::vector<sock_filter> program(padding, BPF_STMT(BPF_LDX | BPF_W | BPF_IMM, 7));
  program.push_back(BPF_STMT(BPF_LD | BPF_B | BPF_ABS, offset));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 1, 0));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, 0xffff));
  const sock_fprog all{static_cast<unsigned short>(program.size()), program.data()};
  must(::setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &all, sizeof all), "SO_ATTACH_FILTER");
}

static void expect_filtered(int from, int to) {
  must(::send(from, "no", 2, 0), "send");
  must(::send(from, "yes", 3, 0), "send");
  char text[8];
  require(must(::recv(to, text, sizeof text, MSG_DONTWAIT), "recv") == 3, "it does not filter");
}

static sockaddr_in loopback() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static sockaddr_in bind_to(int socket, sockaddr_in address) {
  socklen_t size = sizeof address;
  must(::bind(socket, reinterpret_cast<const sockaddr*>(&address), size), "bind");
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), "name");
  return address;
}

static void connect_to(int socket, const sockaddr_in& address) {
  must(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
}

static std::string name_of(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  must(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), "name");
  return {reinterpret_cast<const char*>(&address), size};
}

int main() {
  int pair[2];
  must(::socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), "socketpair");
  const int udp = make(AF_INET, SOCK_DGRAM), sender = make(AF_INET, SOCK_DGRAM);
  constexpr std::uint32_t kUdpHeader = 8;
  filter(udp, kUdpHeader, 500);
  set(udp, SOL_SOCKET, SO_LOCK_FILTER, 1);
  filter(pair[1], 0, 0);
  set(udp, SOL_SOCKET, SO_NO_CHECK, 1);
  connect_to(sender, bind_to(udp, loopback()));
  const std::string long_filter = filter_of(udp), short_filter = filter_of(pair[1]);

  const int away = make(AF_INET, SOCK_DGRAM);
  set(away, IPPROTO_IP, IP_FREEBIND, 1);
  sockaddr_in elsewhere = loopback();
  elsewhere.sin_addr.s_addr = ::inet_addr("192.0.2.77");  // kept for documentation
  bind_to(away, elsewhere);
  set(away, IPPROTO_IP, IP_FREEBIND, 0);
  const std::string away_name = name_of(away);

  const int lite = make(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
  const int lite_sender = make(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
  constexpr int kSendCover = 10, kReceiveCover = 11;
  set(lite_sender, IPPROTO_UDPLITE, kSendCover, 12);
  set(lite, IPPROTO_UDPLITE, kReceiveCover, 8);
  connect_to(lite_sender, bind_to(lite, loopback()));
  const std::string lite_name = name_of(lite);

  constexpr int kProtocol = 253;                                  // kept for experiments
  const int raw_socket = ::socket(AF_INET, SOCK_RAW, kProtocol);  // where permitted
  const int echoes = ::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  const int raw_6 = ::socket(AF_INET6, SOCK_RAW, kProtocol);
  const icmp_filter only_answers{.data = ~(1U << ICMP_ECHOREPLY)};
  constexpr int kOfRaw = 255, kIcmpFilter = 1, kChecksum = 7;
  if (raw_socket >= 0) {
    connect_to(raw_socket, bind_to(raw_socket, loopback()));
    set(raw_socket, IPPROTO_IP, IP_TTL, 33);
    must(::setsockopt(echoes, kOfRaw, kIcmpFilter, &only_answers, sizeof only_answers), "filter");
    if (raw_6 >= 0) set(raw_6, IPPROTO_IPV6, kChecksum, 4);
  }
  const int ping = ::socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
  if (ping >= 0) bind_to(ping, loopback());
  const std::string ping_name = ping >= 0 ? name_of(ping) : "";

  return serve([&] {
    require(filter_of(udp) == long_filter && filter_of(pair[1]) == short_filter, "another filter");
    require(get(udp, SOL_SOCKET, SO_LOCK_FILTER) == 1, "its filter may be changed");
    require(get(pair[1], SOL_SOCKET, SO_LOCK_FILTER) == 0, "a filter may not be changed");
    expect_filtered(sender, udp);
    expect_filtered(pair[0], pair[1]);
    require(get(udp, SOL_SOCKET, SO_NO_CHECK) == 1, "SO_NO_CHECK");
    require(get(sender, SOL_SOCKET, SO_NO_CHECK) == 0, "SO_NO_CHECK of another");
    require(name_of(away) == away_name, "another name");
    require(get(away, IPPROTO_IP, IP_FREEBIND) == 0, "IP_FREEBIND");
    require(name_of(lite) == lite_name, "another name of UDP-Lite");
    require(get(lite_sender, IPPROTO_UDPLITE, kSendCover) == 12, "what UDP-Lite covers");
    require(get(lite, IPPROTO_UDPLITE, kReceiveCover) == 8, "what UDP-Lite has to cover");
    char text[64];
    must(::send(lite_sender, "lite", 4, 0), "send");
    require(must(::recv(lite, text, sizeof text, MSG_DONTWAIT), "recv") == 4, "another datagram");
    if (raw_socket >= 0) {
      must(::send(raw_socket, "raw", 3, 0), "send");
      constexpr int kIpHeader = 20, kTimeToLive = 8;
      require(must(::recv(raw_socket, text, sizeof text, MSG_DONTWAIT), "recv") == kIpHeader + 3,
              "another packet");
      require(text[kTimeToLive] == 33, "IP_TTL");
      icmp_filter now{};
      socklen_t size = sizeof now;
      must(::getsockopt(echoes, kOfRaw, kIcmpFilter, &now, &size), "ICMP_FILTER");
      require(now.data == only_answers.data, "ICMP_FILTER");
      if (raw_6 >= 0) require(get(raw_6, IPPROTO_IPV6, kChecksum) == 4, "IPV6_CHECKSUM");
    }
    if (ping >= 0) require(name_of(ping) == ping_name, "another name of the one for ICMP");
  });
}
