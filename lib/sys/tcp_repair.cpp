// SPDX-License-Identifier: Apache-2.0
#include "sys/tcp_repair.hpp"

#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "sys/call.hpp"

namespace icecore::sys {
namespace {

static_assert(sizeof(TcpWindow) == sizeof(::tcp_repair_window));

constexpr int kRepairOn = TCP_REPAIR_ON, kRepairOff = TCP_REPAIR_OFF_NO_WP;
constexpr int kNotReused = 0, kReused = 1, kNoFilter = 0;
constexpr int kNoQueue = 0, kReceiveQueue = 1, kSendQueue = 2;
constexpr int kOptionSegment = 2, kOptionScale = 3, kOptionSelective = 4, kOptionStamps = 8;
constexpr int kBufferLock = 72;

void set(const Fd& socket, int name, int value) {
  set_integer_option(socket, IPPROTO_TCP, name, value);
}

std::uint32_t get(const Fd& socket, int name) {
  return static_cast<std::uint32_t>(integer_option(socket, IPPROTO_TCP, name));
}

template <class Value>
Value get_value(const Fd& socket, int name) {
  Value value{};
  ::socklen_t size = sizeof value;
  checked([&] { return ::getsockopt(socket.get(), IPPROTO_TCP, name, &value, &size); },
          "read option {} of a TCP connection", name);
  return value;
}

std::uint32_t count(const Fd& socket, unsigned long what) {
  int bytes = 0;
  checked([&] { return ::ioctl(socket.get(), what, &bytes); }, "ask what waits in a connection");
  return static_cast<std::uint32_t>(bytes);
}

void enter_repair(const Fd& socket) {
  if (::setsockopt(socket.get(), IPPROTO_TCP, TCP_REPAIR, &kRepairOn, sizeof kRepairOn) == 0)
    return;
  if (errno == EPERM)
    throw Error{Errc::permission,
                "TCP connection: TCP_REPAIR is not permitted: needs CAP_NET_ADMIN"};
  throw_errno(errno, "set TCP_REPAIR of a connection");
}

void leave_repair(const Fd& socket, int reuse) noexcept {
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_REPAIR, &kRepairOff, sizeof kRepairOff);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
}

void make_deaf(const Fd& socket) {
  ::sock_filter nothing{BPF_RET | BPF_K, 0, 0, 0};
  const ::sock_fprog program{1, &nothing};
  checked(
      [&] {
        return ::setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
      },
      "attach a filter to a connection");
}

void make_hear(const Fd& socket) noexcept {
  ::setsockopt(socket.get(), SOL_SOCKET, SO_DETACH_FILTER, &kNoFilter, sizeof kNoFilter);
}

class InRepair {
 public:
  InRepair(const Fd& socket, int reuse) : socket_(socket), reuse_(reuse) { enter_repair(socket_); }
  InRepair(const InRepair&) = delete;
  InRepair& operator=(const InRepair&) = delete;
  ~InRepair() { leave_repair(socket_, reuse_); }

 private:
  const Fd& socket_;
  int reuse_;
};

Bytes peek(const Fd& socket, std::size_t size) {
  Bytes bytes(size);
  if (bytes.empty()) return bytes;
  const auto got = checked(
      [&] { return ::recv(socket.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT); },
      "look at what waits in a connection");
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

bool has_said_its_end(int state) {
  // In <netinet/tcp.h>, which excludes <linux/tcp.h>.
  constexpr int kFinWait1 = 4, kFinWait2 = 5, kLastAck = 9, kClosing = 11;
  return state == kFinWait1 || state == kFinWait2 || state == kLastAck || state == kClosing;
}

/// In repair mode.  False when something has changed meanwhile.
bool try_read_queues(const Fd& socket, bool ended, TcpConnection& connection) {
  set(socket, TCP_REPAIR_QUEUE, kReceiveQueue);
  const std::uint32_t expected = get(socket, TCP_QUEUE_SEQ);
  connection.received = peek_stream(socket);

  set(socket, TCP_REPAIR_QUEUE, kSendQueue);
  const std::uint32_t written = get(socket, TCP_QUEUE_SEQ);
  const std::uint32_t unacknowledged = count(socket, SIOCOUTQ), unsent = count(socket, SIOCOUTQNSD);
  const std::uint32_t end_waits = ended && unacknowledged != 0 ? 1 : 0;
  connection.sent = peek(socket, unacknowledged - end_waits);
  connection.window = get_value<TcpWindow>(socket, TCP_REPAIR_WINDOW);
  const bool same_sent = count(socket, SIOCOUTQ) == unacknowledged &&
                         count(socket, SIOCOUTQNSD) == unsent &&
                         connection.sent.size() == unacknowledged - end_waits;
  set(socket, TCP_REPAIR_QUEUE, kReceiveQueue);
  const bool same_received = get(socket, TCP_QUEUE_SEQ) == expected;
  // So that what arrives lets what was not sent go out.
  set(socket, TCP_REPAIR_QUEUE, kNoQueue);
  if (!same_sent || !same_received) return false;

  const std::size_t waits = unsent - std::min(unsent, end_waits);
  connection.unsent.assign(connection.sent.end() - static_cast<std::ptrdiff_t>(waits),
                           connection.sent.end());
  connection.sent.resize(connection.sent.size() - waits);
  connection.receive_sequence = expected - static_cast<std::uint32_t>(connection.received.size());
  // An end that has been acknowledged is said once more.
  connection.send_sequence = written - unacknowledged - (ended && end_waits == 0 ? 1 : 0);
  return true;
}

std::uint64_t wall_clock_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

/// The clock of the connection has gone on meanwhile, as others can tell.
std::uint32_t timestamp_now(const TcpConnection& connection) {
  const std::uint64_t now = wall_clock_ms();
  const bool microseconds = (connection.timestamp & 1) != 0;
  const std::uint64_t passed_ms = now - std::min(now, connection.read_at_ms);
  const std::uint64_t passed = microseconds ? passed_ms * 1000 : passed_ms;
  const auto sum = connection.timestamp + static_cast<std::uint32_t>(passed);
  return (sum & ~1U) | (connection.timestamp & 1);
}

void agree(const Fd& socket, const TcpConnection& connection) {
  std::vector<::tcp_repair_opt> options{{kOptionSegment, connection.largest_segment}};
  if (connection.selective) options.push_back({kOptionSelective, 0});
  if (connection.scaled)
    options.push_back(
        {kOptionScale, connection.send_scale | static_cast<std::uint32_t>(connection.receive_scale)
                                                   << 16});
  if (connection.stamped) options.push_back({kOptionStamps, 0});
  checked(
      [&] {
        return ::setsockopt(socket.get(), IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(),
                            static_cast<::socklen_t>(options.size() * sizeof options[0]));
      },
      "set what the ends of a TCP connection have agreed upon");
  if (connection.stamped) set(socket, TCP_TIMESTAMP, static_cast<int>(timestamp_now(connection)));
  // Having no IP options, said anew, makes the kernel compute the size of segments from all that;
  // one of the two is for the family.
  ::setsockopt(socket.get(), IPPROTO_IP, IP_OPTIONS, nullptr, 0);
  ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_RTHDR, nullptr, 0);
}

/// Larger than the limits of the system, until settle_buffers().
void make_room(const Fd& socket, const TcpConnection& connection) {
  constexpr std::uint64_t kMost = 1 << 30, kOverhead = 1 << 16;
  for (const auto& [option, buffer, bytes] :
       {std::tuple{SO_RCVBUFFORCE, connection.receive_buffer, connection.received.size()},
        std::tuple{SO_SNDBUFFORCE, connection.send_buffer,
                   connection.sent.size() + connection.unsent.size()}})
    set_integer_option(socket, SOL_SOCKET, option,
                       static_cast<int>(std::min(kMost, buffer + 4 * bytes + kOverhead)));
}

/// The sizes that they had, which the kernel goes on to choose where it did.
void settle_buffers(const Fd& socket, const TcpConnection& connection, int lock) {
  set_integer_option(socket, SOL_SOCKET, SO_RCVBUFFORCE,
                     static_cast<int>(connection.receive_buffer / 2));
  set_integer_option(socket, SOL_SOCKET, SO_SNDBUFFORCE,
                     static_cast<int>(connection.send_buffer / 2));
  ::setsockopt(socket.get(), SOL_SOCKET, kBufferLock, &lock, sizeof lock);
}

/// In pieces, each of which becomes a segment.
void write_queue(const Fd& socket, int queue, std::span<const std::uint8_t> bytes) {
  constexpr std::size_t kPiece = 16 << 10;
  set(socket, TCP_REPAIR_QUEUE, queue);
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(kPiece, bytes.size()));
    const auto put = checked(
        [&] {
          return ::send(socket.get(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        },
        "put back {} bytes of a TCP connection", bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

}  // namespace

void assume_sent(TcpConnection& connection) {
  const std::size_t room = connection.window.to_send -
                           std::min<std::size_t>(connection.window.to_send, connection.sent.size());
  const auto end = connection.unsent.begin() +
                   static_cast<std::ptrdiff_t>(std::min(room, connection.unsent.size()));
  connection.sent.insert(connection.sent.end(), connection.unsent.begin(), end);
  connection.unsent.erase(connection.unsent.begin(), end);
}

// ---- reading ------------------------------------------------------------------------------------

std::vector<HeldConnections::Held> HeldConnections::hold(std::vector<Fd> sockets) {
  std::vector<Held> held;
  for (Fd& socket : sockets) {
    const int reuse = integer_option(socket, SOL_SOCKET, SO_REUSEADDR);
    held.push_back({std::move(socket), reuse});
  }
  return held;
}

std::vector<LastCall> HeldConnections::last_calls(const std::vector<Held>& held) {
  const auto call = [](const Fd& socket, int level, int name, const int& value) {
    return LastCall{
        SYS_setsockopt,
        {static_cast<std::uint64_t>(socket.get()), static_cast<std::uint64_t>(level),
         static_cast<std::uint64_t>(name), reinterpret_cast<std::uint64_t>(&value), sizeof value}};
  };
  std::vector<LastCall> calls;
  for (const auto& [socket, reuse] : held) {
    calls.push_back(call(socket, IPPROTO_TCP, TCP_REPAIR, kRepairOff));
    calls.push_back(call(socket, SOL_SOCKET, SO_REUSEADDR, reuse == 0 ? kNotReused : kReused));
    calls.push_back(call(socket, SOL_SOCKET, SO_DETACH_FILTER, kNoFilter));
  }
  return calls;
}

HeldConnections::HeldConnections(std::vector<Fd> sockets, bool deaf)
    : held_(hold(std::move(sockets))), testament_(last_calls(held_)), deaf_(deaf) {}

HeldConnections::~HeldConnections() {
  if (forgotten_) return;
  for (const Held& held : held_) {
    if (silent_) leave_repair(held.socket, held.reuse);
    if (deaf_) make_hear(held.socket);
  }
}

TcpConnection HeldConnections::read(const Fd& socket) const {
  constexpr int kAttempts = 100;
  const auto info = get_value<::tcp_info>(socket, TCP_INFO);
  TcpConnection connection;
  connection.selective = (info.tcpi_options & TCPI_OPT_SACK) != 0;
  connection.scaled = (info.tcpi_options & TCPI_OPT_WSCALE) != 0;
  connection.stamped = (info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0;
  if (connection.scaled) {
    connection.send_scale = info.tcpi_snd_wscale;
    connection.receive_scale = info.tcpi_rcv_wscale;
  }
  connection.send_buffer =
      static_cast<std::uint32_t>(integer_option(socket, SOL_SOCKET, SO_SNDBUF));
  connection.receive_buffer =
      static_cast<std::uint32_t>(integer_option(socket, SOL_SOCKET, SO_RCVBUF));

  if (deaf_) make_deaf(socket);
  const InRepair repair{socket, integer_option(socket, SOL_SOCKET, SO_REUSEADDR)};
  connection.largest_segment = static_cast<std::uint16_t>(get(socket, TCP_MAXSEG));
  connection.timestamp = get(socket, TCP_TIMESTAMP);
  connection.read_at_ms = wall_clock_ms();
  for (int attempt = 0; attempt < kAttempts; ++attempt)
    if (try_read_queues(socket, has_said_its_end(info.tcpi_state), connection)) return connection;
  throw Error{Errc::unsupported,
              "TCP connection: does not rest while it is read: cannot be snapshotted; try again"};
}

void HeldConnections::fall_silent() {
  silent_ = true;
  for (const Held& held : held_) enter_repair(held.socket);
}

// ---- making -------------------------------------------------------------------------------------

int try_repair(const Fd& socket, std::span<const std::uint8_t> local,
               std::span<const std::uint8_t> remote, const TcpConnection& connection) {
  make_deaf(socket);
  enter_repair(socket);
  if (const int err = try_bind(socket, local); err != 0) return err;
  const auto set_sequence = [&](int queue, std::uint32_t sequence) {
    set(socket, TCP_REPAIR_QUEUE, queue);
    set(socket, TCP_QUEUE_SEQ, static_cast<int>(sequence));
  };
  set_sequence(kSendQueue, connection.send_sequence);
  set_sequence(kReceiveQueue, connection.receive_sequence);
  if (const int err = try_connect(socket, remote); err != 0) return err;
  agree(socket, connection);

  const int lock = integer_option(socket, SOL_SOCKET, kBufferLock);
  make_room(socket, connection);
  write_queue(socket, kReceiveQueue, connection.received);
  write_queue(socket, kSendQueue, connection.sent);
  set(socket, TCP_REPAIR_QUEUE, kNoQueue);
  checked(
      [&] {
        return ::setsockopt(socket.get(), IPPROTO_TCP, TCP_REPAIR_WINDOW, &connection.window,
                            sizeof connection.window);
      },
      "set the window of a TCP connection");
  settle_buffers(socket, connection, lock);
  return 0;
}

void let_talk(const Fd& socket, const TcpConnection& connection, bool reuse_address, bool end) {
  make_hear(socket);
  set(socket, TCP_REPAIR, TCP_REPAIR_OFF);  // which asks the peer how far it is
  set_integer_option(socket, SOL_SOCKET, SO_REUSEADDR, reuse_address ? kReused : kNotReused);
  if (!connection.unsent.empty()) {
    const int lock = integer_option(socket, SOL_SOCKET, kBufferLock);
    {
      const RoomToSend room{socket};
      send_stream(socket, connection.unsent);
    }
    set_integer_option(socket, SOL_SOCKET, kBufferLock, lock);
  }
  if (end) shut_down(socket, 2);
}

}  // namespace icecore::sys
