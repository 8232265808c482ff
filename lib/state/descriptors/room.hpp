// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the rooms of descriptors/ have in common: one room per kind, chosen by the table in
// descriptors.cpp.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "icecore/restore.hpp"
#include "image/state_generated.h"
#include "state/capture.hpp"
#include "sys/files.hpp"
#include "sys/multicast.hpp"
#include "sys/process.hpp"
#include "sys/socket.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

/// Numbers from here on stand for what no descriptor leads to: it waits in a socket.
constexpr int kInFlight = 1 << 30;

/// One descriptor as it is found in the process, or what waits in a socket.
struct FoundDescriptor {
  int number;
  sys::Fd copy;
  sys::FileStatus status;
  int flags;  ///< F_GETFL
};

/// One open file description of the process, by one of its descriptors.
struct OpenDescription {
  int number;           ///< lowest descriptor that leads to it
  std::string place;    ///< /proc/PID/fd/N
  std::string link;     ///< what /proc/PID/fd/N leads to
  const sys::Fd& copy;  ///< ours, of the same description
  sys::FileStatus status;
  int flags;  ///< F_GETFL
  sys::DescriptorInfo info;
};

/// What all descriptors of a process have in common while they are captured.
struct DescriptorCapture {
  Capture& capture;
  const std::vector<FoundDescriptor>& found;
  std::vector<std::unique_ptr<state::PipeObjectT>> pipes = {};
  std::map<std::uint64_t, std::int32_t> pipe_index = {};  ///< by inode
  std::set<std::uint64_t> readable_pipes = {};            ///< inodes with a read end in the process
  std::set<std::uint64_t> writable_pipes = {};
  std::vector<std::unique_ptr<state::SocketObjectT>> sockets = {};
  std::map<std::uint64_t, std::int32_t> socket_index = {};  ///< by inode
  /// UDP sockets that are shut down, by inode; of a family and protocol once they are asked for.
  std::map<std::pair<int, int>, std::map<std::uint64_t, int>> shut_udp_sockets = {};
  std::optional<std::vector<sys::MulticastGroup>> multicast_groups = {};
  /// Descriptors of TCP connections, by their own address and the other one; once it is asked for.
  std::optional<std::map<std::pair<sys::Bytes, sys::Bytes>, const FoundDescriptor*>> connections =
      {};
  /// What waits in sockets of unix(7), by inode.  Nobody looks twice: of an empty datagram the
  /// kernel tells only once.
  std::map<std::uint64_t, std::vector<sys::SocketMessage>> messages = {};
  std::vector<std::unique_ptr<state::PtyObjectT>> ptys = {};
  std::map<unsigned, std::int32_t> pty_index = {};  ///< by number
  std::unique_ptr<state::TerminalT>& terminal;      ///< that controls the process, outside of it
};

/// Both ends of a pair of pseudo terminals; no slave while it was never open.
struct PtyEnds {
  sys::Fd master;
  sys::Fd slave;
};

/// What all descriptors have in common while they are rebuilt, in our own process.
struct DescriptorRebuild {
  const state::ProcessT& process;
  const RestoreOptions& options;
  const std::string& root;  ///< stands before every path: "" or the root of another namespace
  pid_t pid;                ///< of the new process, as we see it; it has made no call yet
  /// Opens a file of the image by its index.
  const std::function<sys::Fd(std::int32_t file, int flags)>& open_file;
  std::map<std::int32_t, sys::Pipe> pipes = {};             ///< by index, both ends
  std::set<std::pair<std::int32_t, bool>> given_ends = {};  ///< index, write end: handed out once
  std::vector<sys::Fd> sockets = {};                        ///< by index
  std::map<std::int32_t, PtyEnds> ptys = {};                ///< by index
  std::map<std::uint64_t, sys::EndedProcess> ended_processes = {};  ///< by PidFd.ended
  /// Directories that have been deleted, by device and inode of the original.
  std::map<std::pair<std::uint64_t, std::uint64_t>, sys::Fd> deleted_directories = {};
  std::map<std::size_t, sys::Fd> other_ends = {};  ///< that nobody holds, while sockets are filled
};

/// The last step, in the process itself: every descriptor is at its number.
struct DescriptorFinish {
  const state::DescriptorsT& image;
  const std::vector<bool>& is_open;  ///< by description
  int spare;                         ///< a number that nothing uses
  CallStream& calls;
};

/// The descriptor of that number; nullptr when the process has none.
const state::Descriptor* find_descriptor(const state::DescriptorsT& image, int number);

/// What a message in a socket names (SocketMessage.descriptors); nothing: it is not there.
std::optional<std::uint32_t> description_behind(const state::DescriptorsT& image, int number);

struct DescriptorRoom {
  /// True when this kind is its own.
  bool (*matches)(const DescriptorCapture&, const OpenDescription&);
  /// Throws Errc::unsupported when this one cannot be kept.
  state::OpenUnion (*capture)(DescriptorCapture&, const OpenDescription&);
  state::Open kind;
  /// A descriptor of ours for an equal description.  Empty: the process finds it closed.
  sys::Fd (*rebuild)(DescriptorRebuild&, const state::DescriptionT&, int number);
  /// Adds what only the process itself can do, if anything.
  void (*finish)(const DescriptorFinish&, const state::DescriptionT&, int number) = nullptr;
};

/// Notes the pipe, or fifo, behind a description, and gives its index.
std::int32_t capture_pipe(DescriptorCapture& all, const OpenDescription& open);
/// Once all descriptions have been captured.
void refuse_mixed_pipes(const DescriptorCapture& all);
/// Gives a fresh pipe its capacity and contents.
void fill_pipe(const sys::Fd& write_end, const state::PipeObjectT& pipe);

/// What has to wait until all slaves of pseudo terminals are open: after that no more can be.
void settle_pairs(DescriptorRebuild& all);

/// Gives the process its controlling terminal, if that is a pair of its own, and opens what leads
/// to it by the name of /dev/tty.  Part of the last step.
void finish_pairs(const DescriptorFinish& stage);

/// What inotify instances watch; as late as possible, since we open files ourselves.  `root` stands
/// before every path.
void rebuild_watches(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                     const std::string& root);

/// Wraps a table of the schema.
template <class Table>
state::OpenUnion opened(Table table) {
  state::OpenUnion open;
  open.Set(std::move(table));
  return open;
}

extern const DescriptorRoom path_only_room;
extern const DescriptorRoom kernel_file_room;
extern const DescriptorRoom regular_file_room;
extern const DescriptorRoom directory_room;
extern const DescriptorRoom device_room;
extern const DescriptorRoom pipe_room;
extern const DescriptorRoom fifo_room;
extern const DescriptorRoom eventfd_room;
extern const DescriptorRoom epoll_room;
extern const DescriptorRoom timerfd_room;
extern const DescriptorRoom signalfd_room;
extern const DescriptorRoom pidfd_room;
extern const DescriptorRoom inotify_room;
extern const DescriptorRoom unix_socket_room;
extern const DescriptorRoom inet_socket_room;
extern const DescriptorRoom pty_room;
extern const DescriptorRoom external_room;

}  // namespace icecore
