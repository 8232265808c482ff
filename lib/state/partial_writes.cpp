// SPDX-License-Identifier: Apache-2.0
#include "state/partial_writes.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "icecore/error.hpp"
#include "sys/files.hpp"
#include "sys/page.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"
#include "sys/remote_memory.hpp"
#include "sys/socket.hpp"
#include "sys/socket_timeout.hpp"
#include "sys/terminal.hpp"
#include "sys/testament.hpp"

namespace icecore {
namespace {

constexpr long kRestartCall = -512;  // ERESTARTSYS
constexpr std::uint64_t kMostBytes = std::uint64_t{16} << 20;
constexpr std::uint32_t kLargestPipe = 1 << 20;

struct PartialWrite {
  Tracee* thread;
  int number;  ///< of the descriptor
  std::vector<sys::RemoteRange> parts;
  std::uint64_t total;
  std::uint64_t written;
};

std::vector<sys::RemoteRange> read_vector(std::uint64_t address, std::uint64_t count,
                                          const sys::RemoteMemory& memory) {
  constexpr std::uint64_t kMostParts = 1024;  // UIO_MAXIOV
  std::vector<sys::RemoteRange> parts(std::min(count, kMostParts));
  memory.read(address, std::as_writable_bytes(std::span{parts}));
  return parts;
}
static_assert(sizeof(sys::RemoteRange) == sizeof(struct ::iovec));

/// What a call writes; nothing for one that is another, or does not wait.
std::vector<sys::RemoteRange> parts_of(const sys::Registers& r, const sys::RemoteMemory& memory) {
  switch (static_cast<long>(r.orig_rax)) {
    case SYS_write:
      return {{r.rsi, r.rdx}};
    case SYS_writev:
      return read_vector(r.rsi, r.rdx, memory);
    case SYS_sendto:
      if ((r.r10 & MSG_DONTWAIT) != 0) return {};
      return {{r.rsi, r.rdx}};
    case SYS_sendmsg: {
      if ((r.rdx & MSG_DONTWAIT) != 0) return {};
      const auto message = memory.read_value<struct ::msghdr>(r.rsi);
      if (message.msg_controllen != 0) return {};
      return read_vector(reinterpret_cast<std::uint64_t>(message.msg_iov), message.msg_iovlen,
                         memory);
    }
    default:
      return {};
  }
}

/// One that a signal may have ended has returned what it should.
bool has_signal(const Tracee& thread) {
  const auto status = sys::Status::read(thread.tid());
  if (!status || thread.suspended_signal()) return true;
  const auto pending = status->number("SigPnd", 16) | status->number("ShdPnd", 16);
  return (pending & ~thread.signal_mask()) != 0;
}

/// At a glance: most processes have none.
bool may_have_written_part(const Tracee& thread) {
  const sys::Registers& registers = thread.registers();
  return static_cast<long>(registers.orig_rax) >= 0 && static_cast<std::int64_t>(registers.rax) > 0;
}

std::optional<PartialWrite> partial_write(Tracee& thread, const sys::RemoteMemory& memory) {
  if (!may_have_written_part(thread)) return std::nullopt;
  const sys::Registers& registers = thread.registers();
  const auto result = static_cast<std::int64_t>(registers.rax);
  PartialWrite write{.thread = &thread,
                     .number = static_cast<int>(registers.rdi),
                     .parts = parts_of(registers, memory),
                     .total = 0,
                     .written = static_cast<std::uint64_t>(result)};
  for (const sys::RemoteRange& part : write.parts) write.total += part.size_bytes;
  if (write.written >= write.total || has_signal(thread)) return std::nullopt;
  return write;
}

std::vector<std::uint8_t> bytes_of(const PartialWrite& write, std::uint64_t from, std::uint64_t to,
                                   const sys::RemoteMemory& memory) {
  std::vector<sys::RemoteRange> wanted;
  std::uint64_t at = 0;
  for (const sys::RemoteRange& part : write.parts) {
    const std::uint64_t begin = std::max(at, from), end = std::min(at + part.size_bytes, to);
    if (begin < end) wanted.push_back({part.address + (begin - at), end - begin});
    at += part.size_bytes;
  }
  std::vector<std::uint8_t> bytes(to - from);
  memory.read(wanted, std::as_writable_bytes(std::span{bytes}));
  return bytes;
}

void set_result(const PartialWrite& write, std::int64_t result) {
  sys::Registers registers = write.thread->registers();
  registers.rax = static_cast<std::uint64_t>(result);
  write.thread->set_registers(registers);
  write.thread->put_back();
}

sys::LastCall write_call(const sys::Fd& pipe, std::span<const std::uint8_t> bytes) {
  return {SYS_write,
          {static_cast<std::uint64_t>(pipe.get()), reinterpret_cast<std::uint64_t>(bytes.data()),
           bytes.size()}};
}

sys::LastCall send_call(const sys::Fd& socket, std::span<const std::uint8_t> bytes) {
  return {SYS_sendto,
          {static_cast<std::uint64_t>(socket.get()), reinterpret_cast<std::uint64_t>(bytes.data()),
           bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL, 0}};
}

/// The call returns all first: if we are killed before `write` has, the first call of the testament
/// does it.
template <class Write>
void write_rest(const PartialWrite& partial, std::size_t rest, sys::Testament& testament,
                Write write) {
  set_result(partial, static_cast<std::int64_t>(partial.total));
  testament.settle(0);
  const std::size_t written = write();
  testament.settle(1);
  // Others may have written as well, and have taken some of the room.
  if (written < rest) set_result(partial, static_cast<std::int64_t>(partial.written + written));
}

bool is_only_of(pid_t pid, const sys::FileStatus& pipe, const std::string& link) {
  return !sys::process_with_open_file(link, pipe, pid);
}

bool reads_from(pid_t pid, const sys::Fd& process, const std::string& link) {
  return std::ranges::any_of(sys::list_descriptors(pid), [&](int number) {
    return sys::try_read_link(fmt::format("/proc/{}/fd/{}", pid, number)) == link &&
           (sys::status_flags(sys::copy_descriptor(process, number)) & O_ACCMODE) != O_WRONLY;
  });
}

/// False where the end of what the pipe holds is not what the call has written.  `pipe` is ours,
/// open for both.
bool take_back(const PartialWrite& write, const sys::Fd& pipe, const sys::RemoteMemory& memory) {
  const sys::PipeContents found = sys::peek_pipe(pipe);
  const std::uint64_t older = found.bytes.size() - write.written;
  if (found.packets.size() > 1 || write.written > found.bytes.size()) return false;
  const auto part = bytes_of(write, 0, write.written, memory);
  const auto begin = found.bytes.begin() + static_cast<std::ptrdiff_t>(older);
  if (!std::equal(part.begin(), part.end(), begin, found.bytes.end())) return false;
  sys::Testament testament{{write_call(pipe, std::span{found.bytes}.first(older)),
                            write_call(pipe, std::span{found.bytes}.subspan(older))}};
  sys::empty_pipe(pipe, found.bytes.size());
  sys::fill_pipe(pipe, std::span{found.bytes}.first(older));
  testament.settle(1);
  set_result(write, kRestartCall);
  testament.settle(2);
  return true;
}

void write_rest_to_pipe(const PartialWrite& write, const sys::Fd& pipe,
                        const sys::RemoteMemory& memory) {
  const std::uint64_t rest = write.total - write.written;
  // A page each for the first and the last bytes, which share theirs with nothing.
  const std::uint64_t needed = sys::bytes_waiting(pipe) + rest + 2 * kPageSize;
  if (needed > kLargestPipe) return;
  const auto bytes = bytes_of(write, write.written, write.total, memory);
  if (needed > sys::pipe_capacity(pipe))
    sys::set_pipe_capacity(pipe, static_cast<std::uint32_t>(needed));
  sys::Testament testament{{write_call(pipe, bytes)}, 1};
  write_rest(write, bytes.size(), testament, [&] { return sys::write_at_once(pipe, bytes); });
}

void write_rest_to_socket(const PartialWrite& write, const sys::Fd& socket,
                          const sys::RemoteMemory& memory) {
  const sys::SocketKind kind = sys::socket_kind(socket);
  const auto timeout = sys::socket_timeout(socket, SO_SNDTIMEO);
  if (kind.family != AF_UNIX || kind.type != SOCK_STREAM || !timeout || timeout->count() != 0 ||
      write.total - write.written > kMostBytes)
    return;
  const auto bytes = bytes_of(write, write.written, write.total, memory);
  sys::RoomToSend room{socket, sys::RoomToSend::When::later};
  std::vector<sys::LastCall> last = room.calls_back();
  last.insert(last.begin(), send_call(socket, bytes));
  sys::Testament testament{std::move(last), 1};
  room.enlarge();
  write_rest(write, bytes.size(), testament, [&] { return sys::send_at_once(socket, bytes); });
  room.shrink();  // as long as the testament would
}

}  // namespace

void settle_partial_writes(FrozenProcess& process) {
  if (process.stopped()) return;  // SIGSTOP has ended them
  if (std::ranges::none_of(process.threads(), may_have_written_part)) return;
  const sys::RemoteMemory memory{process.pid()};
  std::optional<sys::Fd> pidfd;
  const auto attempt = [&](Tracee& thread, bool anew) {
    try {
      const auto write = partial_write(thread, memory);
      if (!write) return false;
      if (!pidfd) pidfd = sys::open_process(process.pid());
      const sys::Fd file = sys::copy_descriptor(*pidfd, write->number);
      const int flags = sys::status_flags(file);
      if ((flags & (O_NONBLOCK | O_DIRECT)) != 0) return false;
      const sys::FileStatus status = sys::status(file);
      if (S_ISSOCK(status.st_mode) && !anew) write_rest_to_socket(*write, file, memory);
      if (!S_ISFIFO(status.st_mode) || sys::other_end_closed(file)) return false;
      const std::string link =
          sys::read_link(fmt::format("/proc/{}/fd/{}", process.pid(), write->number));
      const sys::Fd pipe =
          sys::open_file(fmt::format("/proc/self/fd/{}", file.get()), O_RDWR | O_NONBLOCK);
      if (anew)
        return reads_from(process.pid(), *pidfd, link) && is_only_of(process.pid(), status, link) &&
               take_back(*write, pipe, memory);
      write_rest_to_pipe(*write, pipe, memory);
    } catch (const Error&) {
      // It returns the part.
    }
    return false;
  };
  // What one has written last hides what another has written before.
  while (std::ranges::any_of(process.threads(),
                             [&](Tracee& thread) { return attempt(thread, true); })) {
  }
  for (Tracee& thread : process.threads()) attempt(thread, false);
}

}  // namespace icecore
