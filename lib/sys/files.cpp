// SPDX-License-Identifier: Apache-2.0
#include "sys/files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <link.h>
#include <linux/memfd.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "sys/call.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {

std::optional<FileStatus> try_status(const std::string& path) {
  FileStatus status{};
  if (::stat(path.c_str(), &status) == 0) return status;
  if (errno == ENOENT || errno == ENOTDIR || errno == ESRCH || errno == ELOOP) return std::nullopt;
  throw_errno(errno, fmt::format("look at {}", path));
}

std::optional<FileStatus> try_link_status(const std::string& path) {
  FileStatus status{};
  if (::lstat(path.c_str(), &status) == 0) return status;
  return std::nullopt;
}

FileStatus status(const std::string& path) {
  FileStatus status{};
  checked([&] { return ::stat(path.c_str(), &status); }, "look at {}", path);
  return status;
}

FileStatus status(const Fd& file) {
  FileStatus status{};
  checked([&] { return ::fstat(file.get(), &status); }, "look at descriptor {}", file.get());
  return status;
}

FileStatus status_of_link(const std::string& path) {
  FileStatus status{};
  checked([&] { return ::lstat(path.c_str(), &status); }, "look at {}", path);
  return status;
}

Fd try_lock(const std::string& path) {
  constexpr mode_t kMode = 0600;
  Fd file{checked([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kMode); },
                  "open {}", path)};
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
  if (errno == EWOULDBLOCK) return Fd{};
  throw_errno(errno, fmt::format("lock {}", path));
}

void append_byte(const std::string& path) {
  constexpr mode_t kMode = 0600;
  const Fd file{checked(
      [&] { return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, kMode); },
      "open {}", path)};
  checked([&] { return ::write(file.get(), ".", 1); }, "write {}", path);
}

Fd open_file(const std::string& path, int flags) {
  return Fd{
      checked([&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY); }, "open {}", path)};
}

std::optional<Fd> try_open_file(const std::string& path, int flags) {
  Fd file{::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY)};
  if (file) return file;
  return std::nullopt;
}

void read_all(const Fd& file, std::span<std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const auto got = checked(
        [&] { return ::pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); },
        "read {} bytes of a file", bytes.size());
    if (got == 0) {
      std::ranges::fill(bytes, std::byte{0});
      return;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

bool try_read_cached(const Fd& file, std::span<std::byte> bytes, std::uint64_t offset) {
  const ::iovec to{bytes.data(), bytes.size()};
  const ssize_t got = ::preadv2(file.get(), &to, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  return got == static_cast<ssize_t>(bytes.size());
}

std::uint64_t position(const Fd& file) {
  return static_cast<std::uint64_t>(checked([&] { return ::lseek(file.get(), 0, SEEK_CUR); },
                                            "read position of descriptor {}", file.get()));
}

void set_position(const Fd& file, std::uint64_t position) {
  checked([&] { return ::lseek(file.get(), static_cast<off_t>(position), SEEK_SET); },
          "set position of descriptor {}", file.get());
}

int status_flags(const Fd& file) {
  return checked([&] { return ::fcntl(file.get(), F_GETFL); }, "read flags of descriptor {}",
                 file.get());
}

void set_status_flags(const Fd& file, int flags) {
  checked([&] { return ::fcntl(file.get(), F_SETFL, flags & ~O_ASYNC); },
          "set flags of descriptor {}", file.get());
}

std::uint64_t file_system_type(const Fd& file) {
  struct ::statfs status {};
  checked([&] { return ::fstatfs(file.get(), &status); },
          "look at the file system of descriptor {}", file.get());
  return static_cast<std::uint64_t>(status.f_type);
}

Fd duplicate(int number, int lowest) {
  return Fd{checked([&] { return ::fcntl(number, F_DUPFD_CLOEXEC, lowest); },
                    "duplicate descriptor {}", number)};
}

bool is_open(int number) { return ::fcntl(number, F_GETFD) >= 0; }

DescriptorInfo::DescriptorInfo(pid_t pid, int number)
    : text_(try_read_process_file(pid, fmt::format("fdinfo/{}", number)).value_or("")) {}

namespace {

/// Where the next line of that name begins, from the line at `at` on.
std::size_t find_line(const std::string& text, const std::string& key, std::size_t at) {
  while (at < text.size() && text.compare(at, key.size(), key) != 0)
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  return at;
}

std::string value_at(const std::string& text, std::size_t at) {
  const std::size_t end = std::min(text.find('\n', at), text.size());
  const std::size_t value = std::min(text.find_first_not_of(" \t", at), end);
  return text.substr(value, end - value);
}

}  // namespace

std::optional<std::string> DescriptorInfo::field(const std::string& name) const {
  const std::string key = name + ":";
  const std::size_t at = find_line(text_, key, 0);
  if (at >= text_.size()) return std::nullopt;
  return value_at(text_, at + key.size());
}

std::vector<std::string> DescriptorInfo::lines(const std::string& name) const {
  const std::string key = name + ":";
  std::vector<std::string> values;
  for (std::size_t at = 0; (at = find_line(text_, key, at)) < text_.size(); at += key.size())
    values.push_back(value_at(text_, at + key.size()));
  return values;
}

bool DescriptorInfo::close_on_exec() const {
  const auto flags = field("flags");
  return flags && (std::strtoul(flags->c_str(), nullptr, 8) & O_CLOEXEC) != 0;
}

bool other_end_closed(const Fd& pipe) {
  ::pollfd ask{pipe.get(), POLLIN | POLLOUT, 0};
  ::poll(&ask, 1, 0);
  return (ask.revents & (POLLHUP | POLLERR)) != 0;
}

bool on_file_system_of(const Fd& file, const std::string& path) {
  struct ::statfs its {
  }, there{};
  if (::fstatfs(file.get(), &its) != 0 || ::statfs(path.c_str(), &there) != 0) return false;
  return its.f_type == there.f_type &&
         std::memcmp(&its.f_fsid, &there.f_fsid, sizeof its.f_fsid) == 0;
}

std::optional<std::string> find_name(const std::string& folder, std::uint64_t inode) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(folder.c_str()), &::closedir};
  if (!entries) return std::nullopt;
  while (const ::dirent* entry = ::readdir(entries.get()))
    if (entry->d_ino == inode) return folder + "/" + entry->d_name;
  return std::nullopt;
}

Fd make_unnamed_file(const std::string& folder, bool linkable) {
  Fd file{::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | (linkable ? 0 : O_EXCL), 0600)};
  if (file) return file;
  // Not every file system can: there it has a name for a moment.
  if ((errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) || linkable)
    throw_errno(errno, fmt::format("make a file without a name in {}", folder));
  std::string name = folder + "/.icecore-XXXXXX";
  file =
      Fd{checked([&] { return ::mkostemp(name.data(), O_CLOEXEC); }, "make a file in {}", folder)};
  checked([&] { return ::unlink(name.c_str()); }, "unlink {}", name);
  return file;
}

bool can_make_files_in(const std::string& folder) {
  return ::faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) == 0;
}

void set_owner(const Fd& file, const Owner& owner) {
  checked([&] { return ::fchown(file.get(), owner.user, owner.group); },
          "give a file to user {} and group {}", owner.user, owner.group);
}

void set_mode(const Fd& file, mode_t mode) {
  checked([&] { return ::fchmod(file.get(), mode); }, "set the mode of a file to {:o}", mode);
}

void set_modification_time(const Fd& file, const ::timespec& time) {
  const std::array times{::timespec{0, UTIME_OMIT}, time};
  checked([&] { return ::futimens(file.get(), times.data()); }, "set the time of a file");
}

unsigned seals(const Fd& file) {
  return static_cast<unsigned>(
      checked([&] { return ::fcntl(file.get(), F_GET_SEALS); }, "read the seals of a memfd"));
}

void add_seals(const Fd& file, unsigned seals) {
  checked([&] { return ::fcntl(file.get(), F_ADD_SEALS, seals); }, "seal a memfd with {:#x}",
          seals);
}

Fd make_memfd(const std::string& name, bool executable) {
  constexpr unsigned kNoExecSeal = 0x08, kExec = 0x10;  // Linux 6.3
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int file = ::memfd_create(name.c_str(), flags | (executable ? kExec : kNoExecSeal));
  if (file < 0 && errno == EINVAL && executable) file = ::memfd_create(name.c_str(), flags);
  if (file < 0) throw_errno(errno, fmt::format("make memfd \"{}\"", name));
  return Fd{file};
}

void remove_file(const std::string& path) {
  checked([&] { return ::unlink(path.c_str()); }, "remove {}", path);
}

void rename_file(const std::string& from, const std::string& to) {
  checked([&] { return ::rename(from.c_str(), to.c_str()); }, "rename {} to {}", from, to);
}

void make_directory(const std::string& path) {
  checked([&] { return ::mkdir(path.c_str(), 0700); }, "make the directory {}", path);
}

void remove_directory(const std::string& path) {
  checked([&] { return ::rmdir(path.c_str()); }, "remove the directory {}", path);
}

void make_fifo(const std::string& path) {
  checked([&] { return ::mkfifo(path.c_str(), 0600); }, "make the fifo {}", path);
}

void set_owner_and_mode(const std::string& path, uid_t user, gid_t group, mode_t mode) {
  checked([&] { return ::lchown(path.c_str(), user, group); }, "give {} to user {}", path, user);
  checked([&] { return ::chmod(path.c_str(), mode); }, "set the mode of {}", path);
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> data_ranges(const Fd& file,
                                                                 std::uint64_t start,
                                                                 std::uint64_t end) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  while (start < end) {
    const off_t data = ::lseek(file.get(), static_cast<off_t>(start), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // nothing but a hole up to the end of the file
    if (data < 0) throw_errno(errno, "find data in a file");
    if (static_cast<std::uint64_t>(data) >= end) break;
    const off_t hole = checked([&] { return ::lseek(file.get(), data, SEEK_HOLE); },
                               "find the end of data in a file");
    ranges.emplace_back(data, std::min(static_cast<std::uint64_t>(hole), end));
    start = ranges.back().second;
  }
  return ranges;
}

Pipe make_pipe() {
  std::array<int, 2> ends{};
  checked([&] { return ::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK); }, "make a pipe");
  return {Fd{ends[0]}, Fd{ends[1]}};
}

std::uint32_t pipe_capacity(const Fd& pipe) {
  return static_cast<std::uint32_t>(
      checked([&] { return ::fcntl(pipe.get(), F_GETPIPE_SZ); }, "read the capacity of a pipe"));
}

void set_pipe_capacity(const Fd& pipe, std::uint32_t bytes) {
  checked([&] { return ::fcntl(pipe.get(), F_SETPIPE_SZ, static_cast<int>(bytes)); },
          "set the capacity of a pipe to {} bytes", bytes);
}

PipeContents peek_pipe(const Fd& read_end) {
  const Pipe copy = make_pipe();
  set_pipe_capacity(copy.write_end, pipe_capacity(read_end));
  const ssize_t size = ::tee(read_end.get(), copy.write_end.get(), INT32_MAX, SPLICE_F_NONBLOCK);
  if (size < 0 && errno != EAGAIN) throw_errno(errno, "copy the contents of a pipe");
  PipeContents contents;
  contents.bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  auto left = std::span{contents.bytes};
  while (!left.empty()) {
    const auto got = checked([&] { return ::read(copy.read_end.get(), left.data(), left.size()); },
                             "read the contents of a pipe");
    contents.packets.push_back(static_cast<std::uint32_t>(got));
    left = left.subspan(static_cast<std::size_t>(got));
  }
  return contents;
}

std::uint32_t bytes_waiting(const Fd& pipe) {
  int bytes = 0;
  checked([&] { return ::ioctl(pipe.get(), FIONREAD, &bytes); }, "ask a pipe for its contents");
  return static_cast<std::uint32_t>(bytes);
}

void empty_pipe(const Fd& read_end, std::size_t bytes) {
  std::vector<std::uint8_t> taken(bytes);
  for (std::size_t left = bytes; left > 0;)
    left -= static_cast<std::size_t>(
        checked([&] { return ::read(read_end.get(), taken.data(), left); }, "empty a pipe"));
}

std::size_t write_at_once(const Fd& write_end, std::span<const std::uint8_t> bytes) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t count = ::write(write_end.get(), bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    written += static_cast<std::size_t>(count);
  }
  return written;
}

void fill_pipe(const Fd& write_end, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const auto put = checked([&] { return ::write(write_end.get(), bytes.data(), bytes.size()); },
                             "fill a pipe");
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

bool is_eventfd(const Fd& file) {
  return try_read_link(fmt::format("/proc/self/fd/{}", file.get())) == "anon_inode:[eventfd]";
}

void add_to_eventfd(const Fd& event, std::uint64_t count) {
  checked([&] { return ::write(event.get(), &count, sizeof count); }, "write to an eventfd");
}

void try_add_to_eventfd(const Fd& event, std::uint64_t count) noexcept {
  while (::write(event.get(), &count, sizeof count) == -1 && errno == EINTR) {
  }
}

std::uint64_t take_from_eventfd(const Fd& event) {
  // A process that shares it may read between a poll(2) of ours and a read(2).
  std::uint64_t count = 0;
  const ::iovec to{&count, sizeof count};
  constexpr int kNothing = -2;
  checked(
      [&]() -> ssize_t {
        const ssize_t read = ::preadv2(event.get(), &to, 1, -1, RWF_NOWAIT);
        return read == -1 && errno == EAGAIN ? kNothing : read;
      },
      "read an eventfd");
  return count;
}

void fill_random(std::span<std::byte> bytes) {
  checked([&] { return ::getrandom(bytes.data(), bytes.size(), 0); }, "draw random numbers");
}

Fd make_eventfd(std::uint64_t count, bool semaphore) {
  Fd event{checked([&] { return ::eventfd(0, EFD_CLOEXEC | (semaphore ? EFD_SEMAPHORE : 0)); },
                   "make an eventfd")};
  if (count != 0)
    checked([&] { return ::write(event.get(), &count, sizeof count); }, "set an eventfd to {}",
            count);
  return event;
}

Fd make_memory_file(const char* name) {
  constexpr unsigned kExecutable = 0x10;  // MFD_EXEC, Linux 6.3
  int file = ::memfd_create(name, MFD_CLOEXEC | kExecutable);
  if (file < 0 && errno == EINVAL) file = ::memfd_create(name, MFD_CLOEXEC);
  if (file < 0 && errno == EACCES)
    throw Error{Errc::permission,
                "make an executable file in memory: Permission denied; set the sysctl "
                "vm.memfd_noexec to 0 or 1",
                EACCES};
  if (file < 0) throw_errno(errno, "make a file in memory");
  return Fd{file};
}

void resize_file(const Fd& file, std::uint64_t size_bytes) {
  checked([&] { return ::ftruncate(file.get(), static_cast<off_t>(size_bytes)); },
          "resize a file to {} bytes", size_bytes);
}

void write_all(const Fd& file, std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const auto put = checked(
        [&] {
          return ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
        },
        "write {} bytes", bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
}

void read_ahead(const Fd& file, std::uint64_t offset, std::uint64_t size_bytes) noexcept {
  ::posix_fadvise(file.get(), static_cast<off_t>(offset), static_cast<off_t>(size_bytes),
                  POSIX_FADV_WILLNEED);
}

bool try_write_file(const std::string& path, const std::string& text) {
  const Fd file{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

SocketPair make_socket_pair() {
  std::array<int, 2> ends{};
  checked([&] { return ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()); },
          "make a socket pair");
  return {Fd{ends[0]}, Fd{ends[1]}};
}

void send_descriptors(const Fd& socket, std::span<const int> numbers) {
  std::byte payload{};
  ::iovec part{&payload, 1};
  alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxSentDescriptors * sizeof(int))> control{};
  ::msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(numbers.size_bytes());
  ::cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(numbers.size_bytes());
  std::memcpy(CMSG_DATA(header), numbers.data(), numbers.size_bytes());
  checked([&] { return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL); }, "pass {} descriptors",
          numbers.size());
}

std::vector<Fd> receive_descriptors(const Fd& socket) {
  std::byte payload{};
  ::iovec part{&payload, 1};
  alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxSentDescriptors * sizeof(int))> control{};
  ::msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  checked(
      [&] {
        const ::ssize_t size = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
        return size < 0 && errno == ECONNRESET ? 0 : size;  // gone without having looked at us
      },
      "receive descriptors");
  std::vector<Fd> received;
  const ::cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return received;
  std::vector<int> numbers((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  std::memcpy(numbers.data(), CMSG_DATA(header), numbers.size() * sizeof(int));
  for (const int number : numbers) received.emplace_back(number);
  return received;
}

void send_text(const Fd& socket, const std::string& text) noexcept {
  ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

std::optional<std::string> receive_text(const Fd& socket) {
  std::string text(4096, '\0');
  const auto size = checked([&] { return ::recv(socket.get(), text.data(), text.size(), 0); },
                            "receive a message");
  if (size == 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(size));
  return text;
}

std::optional<std::string> try_receive_text(const Fd& socket) {
  std::string text(4096, '\0');
  const auto size = ::recv(socket.get(), text.data(), text.size(), MSG_DONTWAIT);
  if (size <= 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(size));
  return text;
}

void shut_down(const Fd& socket) noexcept { ::shutdown(socket.get(), SHUT_WR); }

bool wait_readable(const Fd& socket, std::chrono::milliseconds patience) {
  ::pollfd wait{socket.get(), POLLIN, 0};
  return checked([&] { return ::poll(&wait, 1, static_cast<int>(patience.count())); },
                 "wait for a message") > 0;
}

bool wait_hang_up(const Fd& socket, std::optional<std::chrono::milliseconds> patience) {
  ::pollfd wait{socket.get(), 0, 0};  // POLLHUP is always reported
  const int limit = patience ? static_cast<int>(patience->count()) : -1;
  return checked([&] { return ::poll(&wait, 1, limit); }, "wait for a process") > 0;
}

namespace {

struct AbstractAddress {
  ::sockaddr_un address{};
  ::socklen_t size;
  explicit AbstractAddress(const std::string& name) {
    address.sun_family = AF_UNIX;
    const std::size_t length = std::min(name.size(), sizeof address.sun_path - 1);
    std::memcpy(address.sun_path + 1, name.data(), length);
    size = static_cast<::socklen_t>(offsetof(::sockaddr_un, sun_path) + 1 + length);
  }
  const ::sockaddr* get() const { return reinterpret_cast<const ::sockaddr*>(&address); }
};

Fd make_stream_socket() {
  return Fd{
      checked([] { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }, "make a socket")};
}

/// True when our own user, root, or `owner` is at the other end.
bool is_ours(int socket, ::uid_t owner = 0) noexcept {
  ::ucred peer{};
  ::socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0 || peer.uid == owner);
}

}  // namespace

Fd try_listen(const std::string& name) {
  Fd socket = make_stream_socket();
  const AbstractAddress address{name};
  if (::bind(socket.get(), address.get(), address.size) != 0 || ::listen(socket.get(), 8) != 0)
    return {};
  return socket;
}

Fd try_connect(const std::string& name, ::uid_t owner) {
  Fd socket = make_stream_socket();
  const AbstractAddress address{name};
  if (::connect(socket.get(), address.get(), address.size) != 0) return {};
  if (!is_ours(socket.get(), owner)) return {};
  return socket;
}

Fd try_accept(const Fd& listener) noexcept {
  Fd connection{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  if (!connection || !is_ours(connection.get())) return {};
  return connection;
}

OwnWorkingDirectory::OwnWorkingDirectory(const std::string& path)
    : before_(open_file(".", O_PATH | O_DIRECTORY)) {
  checked([] { return ::unshare(CLONE_FS); }, "have a working directory of its own");
  checked([&] { return ::chdir(path.c_str()); }, "change to {}", path);
}

OwnWorkingDirectory::~OwnWorkingDirectory() {
  // Of a folder that was open before; if it cannot be had, the thread goes on in the other.
  [[maybe_unused]] const int ignored = ::fchdir(before_.get());
}

std::filesystem::path own_file() {
  // Not dladdr(3): in a static program it gives argv[0], which the caller of execve(2) chooses.
  const char* found = "/proc/self/exe";
  const auto look = [](::dl_phdr_info* object, std::size_t, void* result) {
    const auto wanted = reinterpret_cast<std::uintptr_t>(&own_file);
    for (int i = 0; i < object->dlpi_phnum; ++i) {
      const auto& segment = object->dlpi_phdr[i];
      if (segment.p_type != PT_LOAD ||
          wanted - (object->dlpi_addr + segment.p_vaddr) >= segment.p_memsz)
        continue;
      if (object->dlpi_name[0] != '\0') *static_cast<const char**>(result) = object->dlpi_name;
      return 1;
    }
    return 0;
  };
  ::dl_iterate_phdr(look, &found);
  std::error_code ignored;
  return std::filesystem::weakly_canonical(found, ignored);
}

}  // namespace icecore::sys
