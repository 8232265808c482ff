// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "image/validation.hpp"

namespace icecore {
namespace {

constexpr int kMaxDescriptors = 1 << 20;

void validate_watches(const state::InotifyT& inotify) {
  constexpr int kMostWatches = 1 << 24;
  int previous = 0;
  for (const auto& watch : inotify.watches) {
    require(watch != nullptr, "an absent watch");
    require(watch->descriptor > previous && watch->descriptor < kMostWatches,
            "watch {} is out of order", watch->descriptor);
    previous = watch->descriptor;
    validate_path(watch->path, "a watch");
  }
}

void validate_open(const state::OpenUnion& open, const state::ProcessT& process) {
  require(open.value != nullptr, "a descriptor of nothing");
  switch (open.type) {
    case state::Open::RegularFile:
      validate_index(open.AsRegularFile()->file, process.files.size(), "descriptor of file");
      return;
    case state::Open::Directory:
      validate_path(open.AsDirectory()->path, "a directory");
      return;
    case state::Open::Device:
      validate_path(open.AsDevice()->path, "a device");
      return;
    case state::Open::Pipe:
      validate_index(open.AsPipe()->pipe, process.descriptors->pipes.size(), "descriptor of pipe");
      return;
    case state::Open::Epoll:
      for (const state::EpollWatch& watch : open.AsEpoll()->watches)
        require(watch.number() >= 0 && watch.number() < kMaxDescriptors && watch.via() >= 0 &&
                    watch.via() < kMaxDescriptors,
                "an epoll instance that watches {} by {}", watch.number(), watch.via());
      return;
    case state::Open::TimerFd:
      require(open.AsTimerFd()->expires_ns >= 0 && open.AsTimerFd()->interval_ns >= 0,
              "a timerfd of negative time");
      return;
    case state::Open::Socket:
      validate_index(open.AsSocket()->socket, process.descriptors->sockets.size(),
                     "descriptor of socket");
      return;
    case state::Open::PathOnly:
      validate_path(open.AsPathOnly()->path, "a place");
      return;
    case state::Open::KernelFile:
      validate_path(open.AsKernelFile()->path, "a file of the kernel");
      return;
    case state::Open::Fifo:
      validate_path(open.AsFifo()->path, "a fifo");
      validate_index(open.AsFifo()->pipe, process.descriptors->pipes.size(), "fifo with pipe");
      return;
    case state::Open::Inotify:
      validate_watches(*open.AsInotify());
      return;
    case state::Open::Pty:
      validate_index(open.AsPty()->pty, process.descriptors->ptys.size(),
                     "descriptor of pseudo terminal");
      return;
    case state::Open::EventFd:
    case state::Open::SignalFd:
    case state::Open::PidFd:
    case state::Open::External:
      return;
    case state::Open::NONE:
      break;
  }
  corrupt("a descriptor of unknown kind");
}

void validate_address(const std::vector<std::uint8_t>& address,
                      const state::SocketObjectT& socket) {
  constexpr std::size_t kMaxAddress = 128;  // struct sockaddr_storage
  if (address.empty()) return;
  require(address.size() >= 2 && address.size() <= kMaxAddress, "an address of {} bytes",
          address.size());
  require(address[0] + (address[1] << 8) == socket.family, "an address of another family");
}

void validate_message(const state::SocketMessageT& message, const state::SocketObjectT& socket) {
  constexpr std::size_t kMaxPassed = 253;  // SCM_MAX_FD
  validate_address(message.from, socket);
  require(message.descriptors.size() <= kMaxPassed, "a message with {} descriptors",
          message.descriptors.size());
}

void validate_connection(const state::SocketObjectT& socket, bool is_tcp) {
  constexpr std::uint8_t kLargestScale = 14;
  constexpr std::uint32_t kLargestBuffer = 1U << 31;
  constexpr std::size_t kSmallestAddress = 16;  // struct sockaddr_in
  const state::TcpConnectionT& connection = *socket.connection;
  require(is_tcp && socket.peer < 0 && !socket.peer_gone && !socket.listening &&
              socket.local.size() >= kSmallestAddress && socket.remote.size() >= kSmallestAddress,
          "a connection of a socket that has none");
  require(connection.send_scale <= kLargestScale && connection.receive_scale <= kLargestScale,
          "a TCP window scaled by {} and {}", connection.send_scale, connection.receive_scale);
  require(connection.send_buffer < kLargestBuffer && connection.receive_buffer < kLargestBuffer,
          "TCP buffers of {} and {} bytes", connection.send_buffer, connection.receive_buffer);
}

void validate_membership(const state::MembershipT& membership, const state::SocketObjectT& socket) {
  constexpr int kInet = 2, kInet6 = 10, kStream = 1;
  constexpr std::size_t kMaxInterface = 15, kIpBytes = 16, kIpv6Bytes = 28, kMaxSources = 65536;
  const std::vector<std::uint8_t>& group = membership.group;
  require(socket.type != kStream && (socket.family == kInet || socket.family == kInet6),
          "a multicast group of a socket of family {}", socket.family);
  const std::size_t bytes = group.size();
  require((bytes == kIpBytes && group[0] == kInet && group[1] == 0) ||
              (bytes == kIpv6Bytes && group[0] == kInet6 && group[1] == 0),
          "a multicast group of {} bytes", bytes);
  require(!membership.interface.empty() && membership.interface.size() <= kMaxInterface &&
              has_no_nul(membership.interface),
          "a multicast group of interface {}", membership.interface);
  require(
      membership.sources.size() % bytes == 0 && membership.sources.size() / bytes <= kMaxSources,
      "{} bytes of multicast sources", membership.sources.size());
}

void validate_socket(std::size_t index,
                     const std::vector<std::unique_ptr<state::SocketObjectT>>& all) {
  constexpr int kUnix = 1, kInet = 2, kInet6 = 10, kNetlink = 16;
  constexpr int kStream = 1, kDatagram = 2, kRaw = 3, kPackets = 5, kTcp = 6, kUdp = 17;
  constexpr int kUdpLite = 136, kIcmp = 1, kIcmpv6 = 58;
  constexpr std::size_t kMaxOption = std::size_t{4096} * 8;  // BPF_MAXINSNS
  const state::SocketObjectT& socket = *all[index];
  const bool is_inet = socket.family == kInet || socket.family == kInet6;
  const bool is_known =
      (socket.family == kUnix &&
       (socket.type == kStream || socket.type == kDatagram || socket.type == kPackets)) ||
      (is_inet && socket.type == kStream && socket.protocol == kTcp) ||
      (is_inet && socket.type == kDatagram &&
       (socket.protocol == kUdp || socket.protocol == kUdpLite ||
        socket.protocol == (socket.family == kInet ? kIcmp : kIcmpv6))) ||
      (is_inet && socket.type == kRaw) ||
      (socket.family == kNetlink && (socket.type == kDatagram || socket.type == kRaw));
  require(is_known, "a socket of family {}, type {}, protocol {}", socket.family, socket.type,
          socket.protocol);
  require(socket.shut <= 3, "a socket that is shut down as {}", socket.shut);
  require(socket.file_path.empty() || (socket.has_file && socket.file_path.starts_with('/')),
          "a file of a socket at {}", socket.file_path);
  validate_address(socket.local, socket);
  validate_address(socket.remote, socket);
  for (const auto& option : socket.options)
    require(option != nullptr && option->value.size() <= kMaxOption, "a socket option too large");
  for (const auto& membership : socket.memberships) {
    require(membership != nullptr, "an absent multicast group");
    validate_membership(*membership, socket);
  }
  for (const auto& message : socket.messages) {
    require(message != nullptr && socket.family == kUnix, "a message in the wrong place");
    validate_message(*message, socket);
  }
  if (socket.connection) validate_connection(socket, is_inet && socket.type == kStream);
  require(socket.received.empty() || (is_inet && socket.type == kStream &&
                                      (socket.peer >= 0 || socket.peer_gone || socket.connection)),
          "a socket that has received what nobody sent");
  validate_optional_index(socket.peer, all.size(), "socket connected to");
  if (socket.peer < 0) return;
  const state::SocketObjectT& peer = *all[static_cast<std::size_t>(socket.peer)];
  const bool is_tcp = is_inet && socket.type == kStream;
  const bool peer_is_inet = peer.family == kInet || peer.family == kInet6;
  require(((socket.family == kUnix && peer.family == kUnix) || (is_tcp && peer_is_inet)) &&
              peer.type == socket.type,
          "a socket connected to one of another kind");
  require(!is_tcp || socket.accepted != peer.accepted, "a connection with two equal ends");
  require(socket.type == kDatagram || (peer.peer == static_cast<std::int64_t>(index) &&
                                       socket.peer != static_cast<std::int64_t>(index)),
          "a socket connected to one that is not connected to it");
}

void validate_waiting(const state::SocketObjectT& socket,
                      const std::vector<std::unique_ptr<state::SocketObjectT>>& all) {
  constexpr int kUnix = 1, kDatagram = 2;
  for (const std::uint32_t index : socket.waiting) {
    validate_index(index, all.size(), "socket that waits to be accepted");
    const state::SocketObjectT& client = *all[index];
    require(socket.family == kUnix && socket.type != kDatagram && socket.listening &&
                client.family == kUnix && client.type == socket.type && client.peer < 0 &&
                !client.peer_gone && !client.listening,
            "a socket that cannot wait to be accepted");
  }
}

void validate_sockets(const state::DescriptorsT& table) {
  for (const auto& socket : table.sockets) require(socket != nullptr, "an absent socket");
  for (std::size_t i = 0; i < table.sockets.size(); ++i) validate_socket(i, table.sockets);
  for (const auto& socket : table.sockets) {
    for (const auto& message : socket->messages)
      for (const int number : message->descriptors)
        require(number >= 0 ||
                    static_cast<std::size_t>(-1 - std::int64_t{number}) < table.descriptions.size(),
                "a message with description {}", -1 - std::int64_t{number});
    validate_waiting(*socket, table.sockets);
  }
}

constexpr std::size_t kTerminalSettings = 44;  // struct termios2

void validate_pty(const state::PtyObjectT& pty, const state::ProcessT& process) {
  constexpr std::uint32_t kMaxNumber = 1 << 20;
  constexpr std::size_t kMostInput = 4096, kMostOutput = 1 << 20;
  require(pty.number < kMaxNumber && pty.slave <= state::SlaveState::MAX &&
              pty.stopped_output <= state::StoppedOutput::MAX &&
              pty.settings.size() == (pty.hung_up ? 0 : kTerminalSettings),
          "pseudo terminal {} with settings of {} bytes", pty.number, pty.settings.size());
  require(pty.input.size() <= kMostInput && pty.output.size() <= kMostOutput &&
              pty.lines.size() <= kMostInput,
          "pseudo terminal {} holds {} and {} bytes", pty.number, pty.input.size(),
          pty.output.size());
  std::uint64_t bytes = 0;
  for (const state::TypedLine& line : pty.lines) {
    require(line.bytes() != 0 || line.ended_by_key(), "a line without an end");
    bytes += line.bytes();
  }
  require(bytes <= pty.input.size(), "pseudo terminal {} has lines of {} bytes", pty.number, bytes);
  require(!pty.hung_up || (!pty.controls && pty.input.empty() && pty.output.empty()),
          "pseudo terminal {} goes on without its master", pty.number);
  require(!pty.controls || process.session == process.pid,
          "pseudo terminal {} controls a session of others", pty.number);
}

/// At most one of them controls the process.
void validate_ptys(const state::ProcessT& process) {
  const auto& ptys = process.descriptors->ptys;
  for (const auto& pty : ptys) {
    require(pty != nullptr, "an absent pseudo terminal");
    validate_pty(*pty, process);
  }
  require(std::ranges::count_if(ptys, [](const auto& pty) { return pty->controls; }) <= 1,
          "two controlling terminals");
  if (!process.terminal) return;
  const std::size_t settings_bytes = process.terminal->settings.size();
  require(settings_bytes == 0 || settings_bytes == kTerminalSettings,
          "a terminal with settings of {} bytes", settings_bytes);
}

void validate_packets(const state::PipeObjectT& pipe) {
  constexpr std::uint32_t kMaxPacket = 4096;
  if (pipe.packets.empty()) return;
  std::uint64_t bytes = 0;
  for (const std::uint32_t packet : pipe.packets) {
    require(packet != 0 && packet <= kMaxPacket, "a packet of {} bytes in a pipe", packet);
    bytes += packet;
  }
  require(bytes == pipe.contents.size(), "packets of {} bytes in a pipe with {}", bytes,
          pipe.contents.size());
}

void validate_ownership(const state::DescriptionT& description, const state::ProcessT& process) {
  for (const state::FileLock& lock : description.locks) {
    require(lock.kind() <= state::LockKind::lease, "a lock of unknown kind");
    require(lock.start() <= lock.last() && lock.last() <= kMaxFileOffset, "a lock from {} to {}",
            lock.start(), lock.last());
  }
  require(description.owner <= state::SignalOwner::group, "signals for an unknown kind of owner");
  require(description.owner_signal >= 0 && description.owner_signal <= static_cast<int>(kSignals),
          "signal {} of a descriptor", description.owner_signal);
  if (description.owner == state::SignalOwner::thread)
    validate_index(description.owner_thread, process.threads.size(), "signals for thread");
}

}  // namespace

void validate_descriptors(const state::ProcessT& process) {
  const state::DescriptorsT& table = *process.descriptors;
  std::int64_t previous = -1;
  for (const state::Descriptor& descriptor : table.descriptors) {
    require(descriptor.number() > previous && descriptor.number() < kMaxDescriptors,
            "descriptor {} is out of order", descriptor.number());
    previous = descriptor.number();
    validate_index(descriptor.description(), table.descriptions.size(),
                   "descriptor of description");
  }
  for (const auto& description : table.descriptions) {
    require(description != nullptr, "an absent description");
    validate_open(description->open, process);
    validate_ownership(*description, process);
  }
  validate_sockets(table);
  validate_ptys(process);
  for (const auto& pipe : table.pipes) {
    require(pipe != nullptr, "an absent pipe");
    require(pipe->contents.size() <= pipe->capacity, "a pipe of {} bytes holds {}", pipe->capacity,
            pipe->contents.size());
    validate_packets(*pipe);
  }
}

}  // namespace icecore
