// SPDX-License-Identifier: Apache-2.0
#include "sys/socket.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>

#include "sys/call.hpp"
#include "sys/files.hpp"
#include "sys/process.hpp"

namespace icecore::sys {
namespace {

constexpr std::size_t kMaxOption = 256;
// SIOCUNIXFILE; <linux/un.h> cannot be included beside <sys/un.h>.
constexpr unsigned long kOpenUnixFile = SIOCPROTOPRIVATE;
constexpr int kLockOfBuffers = 72;  // SO_BUF_LOCK, Linux 5.14

const ::sockaddr* as_address(std::span<const std::uint8_t> address) {
  return reinterpret_cast<const ::sockaddr*>(address.data());
}

template <class Ask>
Bytes read_address(Ask ask) {
  ::sockaddr_storage storage{};
  ::socklen_t size = sizeof storage;
  if (ask(reinterpret_cast<::sockaddr*>(&storage), &size) != 0) {
    if (errno == ENOTCONN || errno == EINVAL) return {};
    throw_errno(errno, "read the address of a socket");
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&storage);
  return {bytes, bytes + std::min<std::size_t>(size, sizeof storage)};
}

int family_of(std::span<const std::uint8_t> address) {
  ::sa_family_t family = AF_UNSPEC;
  if (address.size() >= sizeof family) std::memcpy(&family, address.data(), sizeof family);
  return family;
}

/// As much of the address as there is.
template <class Address>
Address parse(std::span<const std::uint8_t> bytes) {
  Address address{};
  std::memcpy(&address, bytes.data(), std::min(sizeof address, bytes.size()));
  return address;
}

std::span<const std::uint8_t> name_in(std::span<const std::uint8_t> address) {
  constexpr std::size_t kName = offsetof(::sockaddr_un, sun_path);
  if (family_of(address) != AF_UNIX || address.size() <= kName) return {};
  return address.subspan(kName);
}

}  // namespace

SocketKind socket_kind(const Fd& socket) {
  return {.family = integer_option(socket, SOL_SOCKET, SO_DOMAIN),
          .type = integer_option(socket, SOL_SOCKET, SO_TYPE),
          .protocol = integer_option(socket, SOL_SOCKET, SO_PROTOCOL)};
}

Fd make_socket(const SocketKind& kind) {
  return Fd{checked([&] { return ::socket(kind.family, kind.type | SOCK_CLOEXEC, kind.protocol); },
                    "make a socket of family {}, type {}", kind.family, kind.type)};
}

Bytes local_address(const Fd& socket) {
  return read_address([&](auto* at, auto* size) { return ::getsockname(socket.get(), at, size); });
}

Bytes remote_address(const Fd& socket) {
  return read_address([&](auto* at, auto* size) { return ::getpeername(socket.get(), at, size); });
}

std::string address_text(std::span<const std::uint8_t> address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  switch (family_of(address)) {
    case AF_INET: {
      const auto in = parse<::sockaddr_in>(address);
      ::inet_ntop(AF_INET, &in.sin_addr, text.data(), text.size());
      return fmt::format("{} port {}", text.data(), port_of(address));
    }
    case AF_INET6: {
      const auto in = parse<::sockaddr_in6>(address);
      ::inet_ntop(AF_INET6, &in.sin6_addr, text.data(), text.size());
      return fmt::format("{} port {}", text.data(), port_of(address));
    }
    case AF_UNIX: {
      const auto name = name_in(address);
      if (name.empty()) return "without a name";
      const std::string plain{name.begin(), name.end()};
      return plain.front() == '\0' ? "@" + plain.substr(1) : path_of(address);
    }
    default:
      return fmt::format("of family {}", family_of(address));
  }
}

std::uint16_t port_of(std::span<const std::uint8_t> address) {
  switch (family_of(address)) {
    case AF_INET:
      return ntohs(parse<::sockaddr_in>(address).sin_port);
    case AF_INET6:
      return ntohs(parse<::sockaddr_in6>(address).sin6_port);
    default:
      return 0;
  }
}

std::string path_of(std::span<const std::uint8_t> address) {
  const auto name = name_in(address);
  if (name.empty() || name.front() == 0) return {};
  const std::string path{name.begin(), name.end()};
  return path.substr(0, path.find('\0'));
}

bool has_name(std::span<const std::uint8_t> address) { return !name_in(address).empty(); }

int try_bind(const Fd& socket, std::span<const std::uint8_t> address) {
  const auto size = static_cast<::socklen_t>(address.size());
  return ::bind(socket.get(), as_address(address), size) == 0 ? 0 : errno;
}

int try_connect(const Fd& socket, std::span<const std::uint8_t> address) {
  const auto size = static_cast<::socklen_t>(address.size());
  return ::connect(socket.get(), as_address(address), size) == 0 ? 0 : errno;
}

void bind(const Fd& socket, std::span<const std::uint8_t> address) {
  if (const int err = try_bind(socket, address); err != 0)
    throw_errno(err, fmt::format("bind a socket to {}", address_text(address)));
}

void connect(const Fd& socket, std::span<const std::uint8_t> address) {
  if (const int err = try_connect(socket, address); err != 0)
    throw_errno(err, fmt::format("connect a socket to {}", address_text(address)));
}

int try_connect_here(const Fd& socket, std::span<const std::uint8_t> address) {
  constexpr ::timeval kPatience{.tv_sec = 5, .tv_usec = 0};
  ::timeval before{};
  ::socklen_t size = sizeof before;
  checked([&] { return ::getsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &before, &size); },
          "read the patience of a socket");
  const auto set = [&](const ::timeval& time) {
    checked([&] { return ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time); },
            "set the patience of a socket");
  };
  set(kPatience);
  const int err = try_connect(socket, address);
  if (err == EINPROGRESS)
    throw Error{
        Errc::io,
        fmt::format("connect a socket to {}, on this machine itself: no answer in {} s: does "
                    "a firewall drop what the machine sends to itself?",
                    address_text(address), kPatience.tv_sec)};
  set(before);
  return err;
}

void listen(const Fd& socket, int backlog) {
  checked([&] { return ::listen(socket.get(), backlog); }, "listen at a socket");
}

void shut_down(const Fd& socket, int how) {
  static_assert(SHUT_RD == 0 && SHUT_WR == 1 && SHUT_RDWR == 2);
  if (::shutdown(socket.get(), how - 1) != 0 && errno != ENOTCONN)
    throw_errno(errno, "shut down a socket");
}

std::optional<Bytes> socket_option(const Fd& socket, int level, int name) {
  Bytes value(kMaxOption);
  auto size = static_cast<::socklen_t>(value.size());
  if (::getsockopt(socket.get(), level, name, value.data(), &size) != 0) return std::nullopt;
  value.resize(size);
  return value;
}

bool try_set_socket_option(const Fd& socket, int level, int name,
                           std::span<const std::uint8_t> value) {
  return ::setsockopt(socket.get(), level, name, value.data(),
                      static_cast<::socklen_t>(value.size())) == 0;
}

void set_socket_option(const Fd& socket, int level, int name, std::span<const std::uint8_t> value) {
  if (!try_set_socket_option(socket, level, name, value))
    throw_errno(errno, fmt::format("set option {} of level {} of a socket", name, level));
}

std::optional<Bytes> socket_filter(const Fd& socket) {
  ::socklen_t instructions = 0;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_GET_FILTER, nullptr, &instructions) != 0)
    return std::nullopt;
  Bytes filter(instructions * sizeof(::sock_filter));
  if (filter.empty()) return filter;
  // Whoever has the socket too may change it meanwhile; never by more than there is room for.
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_GET_FILTER, filter.data(), &instructions) != 0)
    return std::nullopt;
  filter.resize(instructions * sizeof(::sock_filter));
  return filter;
}

void set_socket_filter(const Fd& socket, std::span<const std::uint8_t> instructions) {
  std::vector<::sock_filter> copy(instructions.size() / sizeof(::sock_filter));
  std::memcpy(copy.data(), instructions.data(), copy.size() * sizeof(::sock_filter));
  const ::sock_fprog program{.len = static_cast<unsigned short>(copy.size()),
                             .filter = copy.data()};
  checked(
      [&] {
        return ::setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
      },
      "attach a filter to a socket");
}

int integer_option(const Fd& socket, int level, int name) {
  int value = 0;
  ::socklen_t size = sizeof value;
  checked([&] { return ::getsockopt(socket.get(), level, name, &value, &size); },
          "read option {} of level {} of a socket", name, level);
  return value;
}

void set_integer_option(const Fd& socket, int level, int name, int value) {
  checked([&] { return ::setsockopt(socket.get(), level, name, &value, sizeof value); },
          "set option {} of level {} of a socket to {}", name, level, value);
}

bool is_listening(const Fd& socket) {
  return integer_option(socket, SOL_SOCKET, SO_ACCEPTCONN) != 0;
}

TcpState tcp_state(const Fd& socket) {
  ::tcp_info info{};
  ::socklen_t size = sizeof info;
  checked([&] { return ::getsockopt(socket.get(), IPPROTO_TCP, TCP_INFO, &info, &size); },
          "read the state of a TCP socket");
  return {.state = info.tcpi_state, .backlog = info.tcpi_sacked};
}

TcpTraffic tcp_traffic(const Fd& socket) {
  ::tcp_info info{};
  ::socklen_t size = sizeof info;
  checked([&] { return ::getsockopt(socket.get(), IPPROTO_TCP, TCP_INFO, &info, &size); },
          "read the state of a TCP socket");
  return {.sent = info.tcpi_bytes_sent - info.tcpi_bytes_retrans,
          .received = info.tcpi_bytes_received,
          .unsent = info.tcpi_notsent_bytes};
}

Bytes peek_stream(const Fd& socket) {
  int waiting = 0;
  checked([&] { return ::ioctl(socket.get(), FIONREAD, &waiting); }, "ask what waits in a socket");
  Bytes bytes(static_cast<std::size_t>(waiting));
  if (bytes.empty()) return bytes;
  const auto got = checked(
      [&] { return ::recv(socket.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT); },
      "look at what waits in a socket");
  if (static_cast<std::size_t>(got) != bytes.size())
    throw Error{Errc::unsupported,
                "TCP connection: urgent data waits in it: cannot be snapshotted yet"};
  return bytes;
}

void send_stream(const Fd& socket, std::span<const std::uint8_t> bytes) {
  constexpr int kPatienceMs = 5000;
  while (!bytes.empty()) {
    const auto sent = ::send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) throw_errno(errno, "send over a socket");
    if (sent > 0) bytes = bytes.subspan(static_cast<std::size_t>(sent));
    ::pollfd ask{socket.get(), POLLOUT, 0};
    if (sent < 0 && ::poll(&ask, 1, kPatienceMs) == 0)
      throw Error{Errc::io, fmt::format("send over a socket: no room for {} bytes", bytes.size())};
  }
}

void end_without_trace(const Fd& socket) {
  const ::linger at_once{.l_onoff = 1, .l_linger = 0};
  checked(
      [&] { return ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); },
      "set a socket to reset");
}

Bytes plain_address(std::span<const std::uint8_t> address) {
  ::in6_addr host{};
  if (family_of(address) == AF_INET) {
    const auto in = parse<::sockaddr_in>(address);
    host.s6_addr[10] = host.s6_addr[11] = 0xff;
    std::memcpy(&host.s6_addr[12], &in.sin_addr, sizeof in.sin_addr);
  } else {
    host = parse<::sockaddr_in6>(address).sin6_addr;
  }
  Bytes plain(sizeof host + sizeof(std::uint16_t));
  const std::uint16_t port = port_of(address);
  std::memcpy(plain.data(), &host, sizeof host);
  std::memcpy(plain.data() + sizeof host, &port, sizeof port);
  return plain;
}

Fd accept_from(const Fd& listener, std::span<const std::uint8_t> remote) {
  for (;;) {
    Fd accepted{checked([&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC); },
                        "accept a connection")};
    if (plain_address(remote_address(accepted)) == plain_address(remote)) return accepted;
  }
}

int sent_and_not_read(const Fd& socket) {
  int bytes = 0;
  checked([&] { return ::ioctl(socket.get(), SIOCOUTQ, &bytes); },
          "ask what a socket has sent that nobody has read");
  return bytes;
}

bool is_hung_up(const Fd& socket) {
  ::pollfd ask{socket.get(), POLLRDHUP, 0};
  ::poll(&ask, 1, 0);
  return (ask.revents & POLLRDHUP) != 0;
}

bool has_error(const Fd& socket) {
  ::pollfd ask{socket.get(), 0, 0};
  ::poll(&ask, 1, 0);
  return (ask.revents & POLLERR) != 0;
}

bool has_input(const Fd& socket) {
  ::pollfd ask{socket.get(), POLLIN, 0};
  ::poll(&ask, 1, 0);
  return (ask.revents & POLLIN) != 0;
}

void change_owner(const Fd& file, uid_t user) {
  checked([&] { return ::fchown(file.get(), user, static_cast<gid_t>(-1)); },
          "give a socket to user {}", user);
}

ConnectedPair make_connected_pair(int type) {
  std::array<int, 2> ends{};
  checked([&] { return ::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()); },
          "make a socket pair");
  return {Fd{ends[0]}, Fd{ends[1]}};
}

Fd accept_own(const Fd& listener) {
  for (;;) {
    Fd accepted{checked([&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC); },
                        "accept a connection")};
    ::ucred peer{};
    ::socklen_t size = sizeof peer;
    checked([&] { return ::getsockopt(accepted.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size); },
            "ask who has connected");
    if (peer.pid == ::getpid()) return accepted;
  }
}

namespace {

/// Larger than the limits of the system; before the connection is made.
void make_room_to_receive(const Fd& socket, std::size_t bytes) {
  constexpr std::size_t kUsual = 1 << 16, kMost = 1 << 29;
  if (bytes <= kUsual) return;
  const int room = static_cast<int>(std::min(kMost, 2 * bytes));
  for (const int option : {SO_RCVBUF, SO_RCVBUFFORCE})
    ::setsockopt(socket.get(), SOL_SOCKET, option, &room, sizeof room);
  const int chosen_by_kernel = 0;
  ::setsockopt(socket.get(), SOL_SOCKET, kLockOfBuffers, &chosen_by_kernel,
               sizeof chosen_by_kernel);
}

/// Returns when all of it waits to be read.
void give_received(const Fd& from, const Fd& to, std::span<const std::uint8_t> received) {
  constexpr int kAttempts = 5000;
  const RoomToSend room{from};
  send_stream(from, received);
  for (int attempt = 0; peek_stream(to).size() != received.size(); ++attempt) {
    if (attempt == kAttempts)
      throw Error{Errc::io, fmt::format("give a TCP connection back the {} bytes that wait in it: "
                                        "it has no room for them",
                                        received.size())};
    pause_for(std::chrono::milliseconds{1});
  }
}

}  // namespace

Fd make_hung_up_connection(int family, std::span<const std::uint8_t> received, bool reset) {
  const auto kind = SocketKind{family, SOCK_STREAM, IPPROTO_TCP};
  const Fd listener = make_socket(kind);
  Bytes any(family == AF_INET ? sizeof(::sockaddr_in) : sizeof(::sockaddr_in6));
  const auto family_word = static_cast<::sa_family_t>(family);
  std::memcpy(any.data(), &family_word, sizeof family_word);
  if (family == AF_INET) {
    ::sockaddr_in loopback{};
    loopback.sin_family = AF_INET;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(any.data(), &loopback, sizeof loopback);
  } else {
    ::sockaddr_in6 loopback{};
    loopback.sin6_family = AF_INET6;
    loopback.sin6_addr = in6addr_loopback;
    std::memcpy(any.data(), &loopback, sizeof loopback);
  }
  sys::bind(listener, any);
  sys::listen(listener, 8);
  const Bytes there = local_address(listener);
  Fd client = make_socket(kind);
  make_room_to_receive(client, received.size());
  if (const int err = try_connect_here(client, there); err != 0)
    throw_errno(err, fmt::format("connect a socket to {}", address_text(there)));
  const Bytes here = local_address(client);
  for (;;) {
    const Fd accepted{
        checked([&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC); },
                "accept a connection")};
    if (remote_address(accepted) != here) continue;  // of somebody else
    give_received(accepted, client, received);
    if (reset) {
      end_without_trace(accepted);
    } else {
      shut_down(accepted, SHUT_WR + 1);
      shut_down(client, SHUT_WR + 1);
    }
    break;
  }
  return client;
}

std::vector<std::uint32_t> netlink_groups(const Fd& socket) {
  constexpr int kNetlink = 270;  // SOL_NETLINK
  std::array<std::uint32_t, 64> words{};
  ::socklen_t size = sizeof words;
  checked(
      [&] {
        return ::getsockopt(socket.get(), kNetlink, NETLINK_LIST_MEMBERSHIPS, words.data(), &size);
      },
      "read the groups of a netlink socket");
  std::vector<std::uint32_t> groups;
  for (std::uint32_t i = 0; i < std::min<std::uint32_t>(size, sizeof words) * 8; ++i)
    if ((words[i / 32] >> (i % 32) & 1) != 0) groups.push_back(i + 1);
  return groups;
}

bool same_open_file(const Fd& a, const Fd& b) {
  const pid_t us = ::getpid();
  return checked([&] { return ::syscall(SYS_kcmp, us, us, KCMP_FILE, a.get(), b.get()); },
                 "compare descriptors") == 0;
}

RoomToSend::RoomToSend(const Fd& socket, When when)
    : socket_(socket), half_(integer_option(socket, SOL_SOCKET, SO_SNDBUF) / 2), lock_(0) {
  ::socklen_t size = sizeof lock_;
  if (::getsockopt(socket_.get(), SOL_SOCKET, kLockOfBuffers, &lock_, &size) != 0) lock_ = 0;
  if (when == When::at_once) enlarge();
}

void RoomToSend::enlarge() {
  constexpr int kPlenty = 1 << 29;
  for (const int option : {SO_SNDBUF, SO_SNDBUFFORCE})
    ::setsockopt(socket_.get(), SOL_SOCKET, option, &kPlenty, sizeof kPlenty);
}

std::vector<LastCall> RoomToSend::calls_back() const {
  const auto call = [&](int option, const int& value) {
    return LastCall{
        SYS_setsockopt,
        {static_cast<std::uint64_t>(socket_.get()), SOL_SOCKET, static_cast<std::uint64_t>(option),
         reinterpret_cast<std::uint64_t>(&value), sizeof value}};
  };
  return {call(SO_SNDBUF, half_), call(SO_SNDBUFFORCE, half_), call(kLockOfBuffers, lock_)};
}

void RoomToSend::shrink() noexcept {
  for (const int option : {SO_SNDBUF, SO_SNDBUFFORCE})
    ::setsockopt(socket_.get(), SOL_SOCKET, option, &half_, sizeof half_);
  ::setsockopt(socket_.get(), SOL_SOCKET, kLockOfBuffers, &lock_, sizeof lock_);
}

std::size_t send_at_once(const Fd& socket, std::span<const std::uint8_t> bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count =
        ::send(socket.get(), bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count <= 0) break;
    sent += static_cast<std::size_t>(count);
  }
  return sent;
}

// ---- what waits in a socket
// ----------------------------------------------------------------------

namespace {

/// MSG_PEEK goes through the queue for as long as this lives.
class PeekOffset {
 public:
  explicit PeekOffset(const Fd& socket)
      : socket_(socket), before_(integer_option(socket, SOL_SOCKET, SO_PEEK_OFF)) {
    set_integer_option(socket_, SOL_SOCKET, SO_PEEK_OFF, 0);
  }
  PeekOffset(const PeekOffset&) = delete;
  PeekOffset& operator=(const PeekOffset&) = delete;
  ~PeekOffset() { ::setsockopt(socket_.get(), SOL_SOCKET, SO_PEEK_OFF, &before_, sizeof before_); }

 private:
  const Fd& socket_;
  int before_;
};

constexpr std::size_t kMaxMessage = std::size_t{16} << 20;
constexpr std::size_t kMaxControl = 4096;

void read_control(::msghdr& header, SocketMessage& message) {
  for (::cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
       part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    const std::size_t size = part->cmsg_len - CMSG_LEN(0);
    if (part->cmsg_type == SCM_RIGHTS) {
      std::vector<int> numbers(size / sizeof(int));
      std::memcpy(numbers.data(), CMSG_DATA(part), numbers.size() * sizeof(int));
      for (const int number : numbers) message.descriptors.emplace_back(number);
    } else if (part->cmsg_type == SCM_CREDENTIALS) {
      ::ucred found{};
      std::memcpy(&found, CMSG_DATA(part), sizeof found);
      message.credentials = Credentials{found.pid, found.uid, found.gid};
    }
  }
}

}  // namespace

std::vector<SocketMessage> peek_messages(const Fd& socket) {
  std::vector<SocketMessage> messages;
  if (!has_input(socket)) return messages;
  const PeekOffset offset{socket};
  const bool is_stream = integer_option(socket, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
  const auto buffer = std::make_unique_for_overwrite<std::uint8_t[]>(kMaxMessage);  // not touched
  for (;;) {
    ::sockaddr_storage from{};
    alignas(::cmsghdr) std::array<std::byte, kMaxControl> control{};
    ::iovec part{buffer.get(), kMaxMessage};
    ::msghdr header{};
    header.msg_name = &from;
    header.msg_namelen = sizeof from;
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t size =
        ::recvmsg(socket.get(), &header, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EAGAIN) return messages;
    if (size < 0) throw_errno(errno, "look at what waits in a socket");
    SocketMessage message;
    read_control(header, message);
    if (size == 0 && (is_stream || is_hung_up(socket))) return messages;
    if ((header.msg_flags & MSG_CTRUNC) != 0 || (header.msg_flags & MSG_TRUNC) != 0)
      throw Error{Errc::unsupported,
                  "a message that waits in it is too large: cannot be snapshotted"};
    message.bytes.assign(buffer.get(), buffer.get() + size);
    const auto* name = reinterpret_cast<const std::uint8_t*>(&from);
    message.from.assign(name, name + header.msg_namelen);
    messages.push_back(std::move(message));
  }
}

void send_message(const Fd& socket, std::span<const std::uint8_t> bytes,
                  std::span<const int> descriptors, const std::optional<Credentials>& credentials,
                  std::span<const std::uint8_t> to) {
  alignas(::cmsghdr) std::array<std::byte, kMaxControl> control{};
  std::size_t used = 0;
  const auto add = [&](int type, const void* data, std::size_t size) {
    ::cmsghdr part{};
    part.cmsg_level = SOL_SOCKET;
    part.cmsg_type = type;
    part.cmsg_len = CMSG_LEN(size);
    std::memcpy(control.data() + used, &part, sizeof part);
    std::memcpy(control.data() + used + CMSG_LEN(0), data, size);
    used += CMSG_SPACE(size);
  };
  if (!descriptors.empty()) add(SCM_RIGHTS, descriptors.data(), descriptors.size_bytes());
  if (credentials) {
    const ::ucred given{credentials->pid, credentials->user, credentials->group};
    add(SCM_CREDENTIALS, &given, sizeof given);
  }
  const bool is_stream = integer_option(socket, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
  do {
    ::iovec part{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    ::msghdr header{};
    header.msg_name = to.empty() ? nullptr : const_cast<std::uint8_t*>(to.data());
    header.msg_namelen = static_cast<::socklen_t>(to.size());
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = used == 0 ? nullptr : control.data();
    header.msg_controllen = used;
    const auto sent =
        checked([&] { return ::sendmsg(socket.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT); },
                "put back {} bytes that waited in a socket", bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
    used = 0;
  } while (is_stream && !bytes.empty());
}

bool name_is_alive(std::span<const std::uint8_t> address, int type) {
  const Fd probe = make_socket({AF_UNIX, type == SOCK_DGRAM ? SOCK_STREAM : SOCK_DGRAM, 0});
  const int err = try_connect(probe, address);
  return err != ECONNREFUSED && err != ENOENT;
}

bool file_is_alive(const std::string& path, int type) {
  const Fd file = open_file(path, O_PATH);
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  fmt::format_to_n(address.sun_path, sizeof address.sun_path - 1, "/proc/self/fd/{}", file.get());
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&address);
  return name_is_alive({bytes, sizeof address}, type);
}

std::optional<Fd> try_open_file_of(const Fd& socket) {
  const int file = ::ioctl(socket.get(), kOpenUnixFile);
  if (file < 0 && errno == EPERM) return std::nullopt;
  return Fd{checked([&] { return file; }, "open the file of a unix socket")};
}

}  // namespace icecore::sys
