// SPDX-License-Identifier: Apache-2.0
#pragma once

// Files, pipes, eventfds and sockets of our own process, and what fdinfo says of another's.
//
// Kernel facts relied on here:
//  * /proc/PID/map_files/START-END leads to the mapped file itself, also when its path now names
//    another one.  Needs CAP_CHECKPOINT_RESTORE.
//  * /proc/PID/fd/N does the same for an open file; opening it makes a new open file description.
//  * tee(2) copies what is in a pipe without taking it out.
//  * O_DIRECT on the write end makes each write(2) a packet, 4096 bytes at most, and a read ends
//  with
//    the packet.  tee(2) keeps them apart.
//  * A pipe whose other end is closed everywhere reports POLLHUP (read end) or POLLERR (write end).

#include <sys/stat.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sys/fd.hpp"

namespace icecore::sys {

using FileStatus = struct ::stat;

std::optional<FileStatus> try_status(const std::string& path);
/// The same, but of a symbolic link itself.
std::optional<FileStatus> try_link_status(const std::string& path);
FileStatus status(const std::string& path);
FileStatus status(const Fd& file);

/// Of a symbolic link, not of what it leads to.
FileStatus status_of_link(const std::string& path);

/// A file, made when there is none, that is locked (flock(2)) until this is closed.  Without
/// descriptor when somebody else has it.
Fd try_lock(const std::string& path);

/// Adds a byte to a file, made when there is none.
void append_byte(const std::string& path);

/// Opens with O_CLOEXEC added.
Fd open_file(const std::string& path, int flags);
std::optional<Fd> try_open_file(const std::string& path, int flags);

/// Fills `bytes` from `offset` on; what lies behind the end of the file becomes zero.
void read_all(const Fd& file, std::span<std::byte> bytes, std::uint64_t offset);

/// The same without waiting for the disk: false where not all of it is in the page cache, or in the
/// file, or where the filesystem cannot tell.
[[nodiscard]] bool try_read_cached(const Fd& file, std::span<std::byte> bytes,
                                   std::uint64_t offset);

std::uint64_t position(const Fd& file);
void set_position(const Fd& file, std::uint64_t position);

/// F_GETFL without the bits that only open(2) knows.
int status_flags(const Fd& file);
/// Without O_ASYNC, which belongs to a descriptor's number.
void set_status_flags(const Fd& file, int flags);

/// As in linux/magic.h.
std::uint64_t file_system_type(const Fd& file);

/// Another descriptor of ours for the same open file description.
Fd duplicate(int number, int lowest = 3);

/// True when our process has descriptor `number` open.
bool is_open(int number);

/// What /proc/PID/fdinfo/N says: "flags", "eventfd-count" … without leading blanks.
class DescriptorInfo {
 public:
  DescriptorInfo(pid_t pid, int number);

  std::optional<std::string> field(const std::string& name) const;
  /// The values of all lines of that name.
  std::vector<std::string> lines(const std::string& name) const;
  bool close_on_exec() const;

 private:
  std::string text_;
};

/// True when no one holds the other end of a pipe.
bool other_end_closed(const Fd& pipe);

void remove_file(const std::string& path);
/// Replaces what has the new name.
void rename_file(const std::string& from, const std::string& to);
/// For its owner only, until set_owner_and_mode().
void make_directory(const std::string& path);
void remove_directory(const std::string& path);
void make_fifo(const std::string& path);
void set_owner_and_mode(const std::string& path, uid_t user, gid_t group, mode_t mode);

// ---- files without a name --------------------------------------------------------------------

/// True when the file lies on the file system to which `path` leads.
bool on_file_system_of(const Fd& file, const std::string& path);

/// A name in `folder` that leads to a file of it, by its inode.
std::optional<std::string> find_name(const std::string& folder, std::uint64_t inode);

/// A file on the file system of `folder` that has no name, open for reading and writing.  linkat(2)
/// can give it one if it is `linkable`.
Fd make_unnamed_file(const std::string& folder, bool linkable);

/// True when this user may make files in it.
bool can_make_files_in(const std::string& folder);

struct Owner {
  uid_t user;
  gid_t group;
};
void set_owner(const Fd& file, const Owner& owner);
void set_mode(const Fd& file, mode_t mode);
/// Leaves the time of the last access alone.
void set_modification_time(const Fd& file, const ::timespec& time);

constexpr unsigned kSealExec = 0x20;  // F_SEAL_EXEC, Linux 6.3
/// F_SEAL_* of a memfd.
unsigned seals(const Fd& file);
/// The file must be open for writing.
void add_seals(const Fd& file, unsigned seals);

/// A memfd to which seals can be added.  Without `executable` it has F_SEAL_EXEC from birth.
Fd make_memfd(const std::string& name, bool executable);

// ---- contents of files and shared memory -----------------------------------------------------

/// Ranges of a file that hold data (SEEK_DATA, SEEK_HOLE), within [start, end).
std::vector<std::pair<std::uint64_t, std::uint64_t>> data_ranges(const Fd& file,
                                                                 std::uint64_t start,
                                                                 std::uint64_t end);

// ---- pipes -----------------------------------------------------------------------------------

struct Pipe {
  Fd read_end;
  Fd write_end;
};
/// Both ends are non-blocking.
Pipe make_pipe();

std::uint32_t pipe_capacity(const Fd& pipe);
void set_pipe_capacity(const Fd& pipe, std::uint32_t bytes);

struct PipeContents {
  std::vector<std::uint8_t> bytes;
  std::vector<std::uint32_t> packets;  ///< sizes of what single reads return, in order
};
/// What a pipe holds, left in it.
PipeContents peek_pipe(const Fd& read_end);

std::uint32_t bytes_waiting(const Fd& pipe);

/// Takes so many bytes out, which it holds.
void empty_pipe(const Fd& read_end, std::size_t bytes);

/// Puts in what there is room for, and says how much that is.  The descriptor does not wait.
std::size_t write_at_once(const Fd& write_end, std::span<const std::uint8_t> bytes);

/// Puts bytes into a pipe that has room for them, as one packet if it is O_DIRECT.
void fill_pipe(const Fd& write_end, std::span<const std::uint8_t> bytes);

// ---- others ----------------------------------------------------------------------------------

Fd make_eventfd(std::uint64_t count, bool semaphore);
bool is_eventfd(const Fd& file);
void add_to_eventfd(const Fd& event, std::uint64_t count);
void try_add_to_eventfd(const Fd& event, std::uint64_t count) noexcept;
/// What it holds, which is then 0.  Does not wait.
std::uint64_t take_from_eventfd(const Fd& event);

void fill_random(std::span<std::byte> bytes);

/// An unnamed file in memory that may be executed and mapped.
Fd make_memory_file(const char* name);
void resize_file(const Fd& file, std::uint64_t size_bytes);
void write_all(const Fd& file, std::span<const std::byte> bytes, std::uint64_t offset);

/// Has the kernel read a part of a file into the page cache, without waiting for the bytes.
void read_ahead(const Fd& file, std::uint64_t offset, std::uint64_t size_bytes) noexcept;

/// Writes a file of /proc.  False when the kernel does not allow it.
bool try_write_file(const std::string& path, const std::string& text);

struct SocketPair {
  Fd ours;
  Fd theirs;
};
/// A pair that keeps messages apart, for passing descriptors.
SocketPair make_socket_pair();

/// Sends one message of one byte with descriptors, at most kMaxSentDescriptors.
constexpr std::size_t kMaxSentDescriptors = 253;  // SCM_MAX_FD
void send_descriptors(const Fd& socket, std::span<const int> numbers);

/// Receives such a message; empty when the other side is gone.
std::vector<Fd> receive_descriptors(const Fd& socket);

/// Messages of text.  Sending to nobody is not an error.
void send_text(const Fd& socket, const std::string& text) noexcept;
/// Waits for one; nothing when the other side is gone.
std::optional<std::string> receive_text(const Fd& socket);
/// What is there, if anything.
std::optional<std::string> try_receive_text(const Fd& socket);
/// Says that nothing more will be sent.
void shut_down(const Fd& socket) noexcept;
/// Waits until something has come, or the other side is gone; false when `patience` is over.
bool wait_readable(const Fd& socket, std::chrono::milliseconds patience);
/// Waits until the other side is gone, whatever it says before; false when `patience` is over.
bool wait_hang_up(const Fd& socket, std::optional<std::chrono::milliseconds> patience);

/// Sockets by a name that goes with whoever listens (the abstract namespace of unix(7)).  Without
/// descriptor when the name is taken, or when neither our own user, nor root, nor `owner` listens
/// there.
Fd try_listen(const std::string& name);
Fd try_connect(const std::string& name, uid_t owner);
/// A connection of our own user, or of root.  Without descriptor when there is none, or it was
/// somebody else's.
Fd try_accept(const Fd& listener) noexcept;

/// While it lives, the calling thread has this working directory, and no other thread of ours.  The
/// thread must have been made for it: from then on it shares its working directory, root and umask
/// with none.  (unshare(2) with CLONE_FS.)
class OwnWorkingDirectory {
 public:
  explicit OwnWorkingDirectory(const std::string& path);
  OwnWorkingDirectory(const OwnWorkingDirectory&) = delete;
  OwnWorkingDirectory& operator=(const OwnWorkingDirectory&) = delete;
  ~OwnWorkingDirectory();

 private:
  Fd before_;
};

/// The file that this code was loaded from: the shared library, or the program it is linked into.
std::filesystem::path own_file();

}  // namespace icecore::sys
