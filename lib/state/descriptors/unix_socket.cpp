// SPDX-License-Identifier: Apache-2.0
//
// Sockets of unix(7): without connection, listening, in pairs inside the process, and those whose
// other end nobody holds any more; with what waits in them, descriptors included.
//
// Of those who wait to be accepted, connections of the process itself are kept, in their order;
// others are hung up when the snapshotted process ends.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <span>

#include "state/descriptors/sockets.hpp"
#include "state/file_table.hpp"
#include "sys/process.hpp"

namespace icecore {
namespace {

struct Ends {
  std::optional<std::uint64_t> peer;  ///< inode in the process
  bool gone = false;                  ///< it was connected
  bool outside = false;
  bool waits = false;  ///< at a listening socket of the process, to be accepted
};

bool in_process(const DescriptorCapture& all, std::uint64_t inode) {
  return std::ranges::any_of(all.found, [&](const FoundDescriptor& found) {
    return found.status.st_ino == inode && S_ISSOCK(found.status.st_mode);
  });
}

bool waits_in_process(const DescriptorCapture& all, std::uint64_t inode) {
  return std::ranges::any_of(all.found, [&](const FoundDescriptor& found) {
    if (!S_ISSOCK(found.status.st_mode) || sys::socket_kind(found.copy).family != AF_UNIX ||
        !sys::is_listening(found.copy))
      return false;
    const auto waiting = sys::UnixSockets{}.find(found.status.st_ino).waiting;
    return std::ranges::find(waiting, inode) != waiting.end();
  });
}

Ends ends_of(const DescriptorCapture& all, std::uint64_t inode, const sys::UnixSocket& socket,
             int type) {
  if (!socket.peer) return {};
  if (*socket.peer == 0) {
    if (type == SOCK_DGRAM || socket.shut == 3) return {.peer = {}, .gone = true};
    const bool ours = waits_in_process(all, inode);  // to be accepted
    return {.peer = {}, .gone = false, .outside = !ours, .waits = ours};
  }
  if (in_process(all, *socket.peer)) return {.peer = socket.peer};
  return {.peer = {}, .gone = false, .outside = true};
}

/// A datagram socket is connected again to a name; any other leads outside.
bool leads_outside(const Ends& ends, const sys::Fd& socket, int type, int number) {
  return ends.outside &&
         (type != SOCK_DGRAM || number <= 2 || !sys::has_name(sys::remote_address(socket)));
}

bool is_unix_socket(const DescriptorCapture& all, const OpenDescription& open) {
  if (!S_ISSOCK(open.status.st_mode) || !open.link.starts_with("socket:")) return false;
  const sys::SocketKind kind = sys::socket_kind(open.copy);
  if (kind.family != AF_UNIX) return false;
  const Ends ends =
      ends_of(all, open.status.st_ino, sys::UnixSockets{}.find(open.status.st_ino), kind.type);
  return !leads_outside(ends, open.copy, kind.type, open.number);
}

bool is_relative(const std::string& path) { return !path.empty() && path.front() != '/'; }

bool is_file_of(const sys::UnixSocket& socket, const std::optional<sys::FileStatus>& status) {
  return status && socket.file && S_ISSOCK(status->st_mode) &&
         socket.file->second == static_cast<std::uint32_t>(status->st_ino);
}

/// Where the file is that does not have the socket's name any more; empty: it was deleted.
std::string moved_file(const OpenDescription& open, const std::string& name) {
  const auto file = sys::try_open_file_of(open.copy);
  if (!file)
    throw Error{Errc::unsupported,
                fmt::format("unix socket bound to {}, which does not lead to it any more: only "
                            "CAP_NET_ADMIN tells where its file is now",
                            name)};
  const auto status = sys::status(*file);
  std::string path = sys::read_link(fmt::format("/proc/self/fd/{}", file->get()));
  const auto named = sys::try_link_status(path);
  if (named && named->st_ino == status.st_ino && named->st_dev == status.st_dev) return path;
  if (status.st_nlink == 0) return {};
  if (const auto other = sys::find_name(path.substr(0, path.rfind('/') + 1), status.st_ino))
    return *other;
  throw Error{Errc::unsupported,
              fmt::format("unix socket bound to {}: that name of its file was deleted, and it has "
                          "another one that icecore does not know: cannot be snapshotted",
                          name)};
}

/// The file that was made when it got its name, if there still is one.
void capture_file(const DescriptorCapture& all, const OpenDescription& open,
                  const sys::UnixSocket& socket, state::SocketObjectT& object) {
  std::string path = sys::path_of(object.local);
  if (path.empty()) return;
  if (is_relative(path)) path = fmt::format("/proc/{}/cwd/{}", all.capture.pid, path);
  auto status = sys::try_status(path);
  if (!is_file_of(socket, status)) {
    // Nobody needs that of a connection.
    if (object.type != SOCK_DGRAM && socket.peer) return;
    object.file_path = moved_file(open, sys::path_of(object.local));
    if (object.file_path.empty()) return;
    status = sys::status(object.file_path);
  }
  object.has_file = true;
  object.file_mode = status->st_mode & 07777U;
  object.file_user = status->st_uid;
  object.file_group = status->st_gid;
}

/// The descriptor of the process that leads to the same open file as `ours`.
int find_number(const DescriptorCapture& all, const sys::Fd& ours) {
  const auto status = sys::status(ours);
  for (const FoundDescriptor& found : all.found)
    if (found.status.st_ino == status.st_ino && found.status.st_dev == status.st_dev &&
        sys::same_open_file(found.copy, ours))
      return found.number;
  return -1;
}

std::unique_ptr<state::SocketMessageT> capture_message(DescriptorCapture& all,
                                                       sys::SocketMessage found) {
  auto message = std::make_unique<state::SocketMessageT>();
  message->bytes = std::move(found.bytes);
  if (found.credentials) {
    if (found.credentials->pid != all.capture.pid)
      throw Error{
          Errc::unsupported,
          fmt::format("unix socket: a message with the credentials of process {} waits in it: "
                      "cannot be snapshotted",
                      found.credentials->pid)};
    message->has_credentials = true;
    message->user = found.credentials->user;
    message->group = found.credentials->group;
  }
  if (sys::has_name(found.from)) message->from = std::move(found.from);
  for (const sys::Fd& passed : found.descriptors) {
    const int number = find_number(all, passed);
    if (number < 0)
      throw Error{Errc::unsupported,
                  "unix socket: a descriptor that came meanwhile waits in it: try again"};
    message->descriptors.push_back(number);
  }
  return message;
}

/// A sender with a name must be there to send it again.
void check_senders(const DescriptorCapture& all, const state::SocketObjectT& object) {
  for (const auto& message : object.messages) {
    if (message->from.empty()) continue;
    const bool there = std::ranges::any_of(all.found, [&](const FoundDescriptor& found) {
      return S_ISSOCK(found.status.st_mode) && sys::local_address(found.copy) == message->from;
    });
    if (!there)
      throw Error{Errc::unsupported,
                  fmt::format("unix socket: a message from {}, which is outside the process, waits "
                              "in it: cannot be snapshotted",
                              sys::address_text(message->from))};
  }
}

/// Connected one way, which takes a name to do again.
void refuse_unreachable_peer(const DescriptorCapture& all, std::uint64_t peer,
                             std::uint64_t inode) {
  if (sys::UnixSockets{}.find(peer).peer == inode) return;
  const auto at = std::ranges::find_if(
      all.found, [&](const FoundDescriptor& found) { return found.status.st_ino == peer; });
  if (!sys::has_name(sys::local_address(at->copy)))
    throw Error{
        Errc::unsupported,
        "unix socket: is connected to one without a name that is not connected to it: cannot "
        "be snapshotted"};
}

state::OpenUnion capture_unix_socket(DescriptorCapture& all, const OpenDescription& open) {
  const sys::SocketKind kind = sys::socket_kind(open.copy);
  const sys::UnixSocket socket = sys::UnixSockets{}.find(open.status.st_ino);
  const std::int32_t index = capture_socket(all, open, kind);
  const Ends ends = ends_of(all, open.status.st_ino, socket, kind.type);
  state::SocketT reference;
  reference.socket = index;

  object_at(all, index).listening = sys::is_listening(open.copy);
  object_at(all, index).backlog = socket.backlog;
  for (const std::uint64_t inode : socket.waiting)
    if (in_process(all, inode)) {
      const auto who = static_cast<std::uint32_t>(socket_index(all, inode));
      object_at(all, index).waiting.push_back(who);
    }
  // What it has sent waits where only accept(2) leads.
  if (ends.waits && sys::sent_and_not_read(open.copy) != 0)
    throw Error{Errc::unsupported,
                "unix socket: waits to be accepted by the process itself and has sent something: "
                "cannot be snapshotted yet; try again"};
  object_at(all, index).shut = static_cast<std::uint8_t>(socket.shut);
  object_at(all, index).peer_gone = ends.gone;
  if (ends.peer) {
    refuse_unreachable_peer(all, *ends.peer, open.status.st_ino);
    const std::int32_t peer = socket_index(all, *ends.peer);
    object_at(all, index).peer = peer;
  } else if (ends.outside) {
    object_at(all, index).remote = sys::remote_address(open.copy);
  }
  state::SocketObjectT& object = object_at(all, index);
  capture_file(all, open, socket, object);
  if (!object.listening)
    for (sys::SocketMessage& message : all.messages[open.status.st_ino])
      object.messages.push_back(capture_message(all, std::move(message)));
  check_senders(all, object);
  return opened(reference);
}

// ---- rebuilding ---------------------------------------------------------------------------------

using Objects = std::vector<std::unique_ptr<state::SocketObjectT>>;

/// Connected to each other.
bool is_mutual(const Objects& objects, std::size_t index) {
  const std::int32_t peer = objects[index]->peer;
  const auto own = static_cast<std::int32_t>(index);
  return peer >= 0 && peer != own && objects[static_cast<std::size_t>(peer)]->peer == own;
}

bool is_connection(const state::SocketObjectT& object) {
  return object.type != SOCK_DGRAM && (object.peer >= 0 || object.peer_gone);
}

/// The file of its name lies there.
bool keeps_its_name(const state::SocketObjectT& object) {
  return object.has_file && object.file_path.empty();
}

/// The folders of a name that exist no more, for as long as it takes to have the name.
class FoldersOnce {
 public:
  explicit FoldersOnce(const std::string& path) {
    if (path.empty() || is_relative(path)) return;
    const std::string there = existing_folder("", path);
    for (std::size_t end = path.find('/', there.size()); end != std::string::npos;
         end = path.find('/', end + 1)) {
      sys::make_directory(path.substr(0, end));
      made_.push_back(path.substr(0, end));
    }
  }
  FoldersOnce(const FoldersOnce&) = delete;
  FoldersOnce& operator=(const FoldersOnce&) = delete;
  ~FoldersOnce() {
    try {
      while (!made_.empty()) {
        sys::remove_directory(made_.back());
        made_.pop_back();
      }
    } catch (const Error&) {
      // Somebody has put something into it: then it stays.
    }
  }

 private:
  std::vector<std::string> made_;
};

/// Those of the process that wait to be accepted.
void connect_waiting(DescriptorRebuild& all, const Objects& objects, std::size_t index) {
  const auto& waiting = objects[index]->waiting;
  if (waiting.empty()) return;
  // How many may wait, the process itself says.
  sys::listen(all.sockets[index], static_cast<int>(waiting.size()));
  for (const std::uint32_t client : waiting)
    sys::connect(all.sockets[client], objects[index]->local);
}

/// Those that are connected one way to a name that is about to go, and somebody who can send to it.
void connect_while_named(DescriptorRebuild& all, const Objects& objects, std::size_t index) {
  const state::SocketObjectT& object = *objects[index];
  if (object.type != SOCK_DGRAM) return connect_waiting(all, objects, index);
  for (std::size_t i = 0; i < objects.size(); ++i)
    if (objects[i]->family == AF_UNIX && !is_mutual(objects, i) &&
        objects[i]->peer == static_cast<std::int32_t>(index))
      sys::connect(all.sockets[i], object.local);
  const bool from_nobody = std::ranges::any_of(
      object.messages, [](const auto& message) { return message->from.empty(); });
  if (!from_nobody || is_mutual(objects, index) || all.other_ends.contains(index)) return;
  sys::Fd sender = sys::make_socket({AF_UNIX, SOCK_DGRAM, 0});
  sys::connect(sender, object.local);
  all.other_ends.emplace(index, std::move(sender));
}

/// The name does not lead to it afterwards.
bool loses_its_name(const state::SocketObjectT& object) {
  return !keeps_its_name(object) && !sys::path_of(object.local).empty();
}

/// The kernel frees what waited in itself only a moment after its last process has ended.
void bind_when_free(const sys::Fd& socket, std::span<const std::uint8_t> name) {
  constexpr std::chrono::milliseconds kPause{10};
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (sys::try_bind(socket, name) != EADDRINUSE) break;
    sys::pause_for(kPause);
  }
  if (!sys::has_name(sys::local_address(socket))) sys::bind(socket, name);
}

/// Binds, and gives the file back its place, owner and mode.
void bind_to_name(DescriptorRebuild& all, const Objects& objects, std::size_t index) {
  const sys::Fd& socket = all.sockets[index];
  const state::SocketObjectT& object = *objects[index];
  std::string path = sys::path_of(object.local);
  const FoldersOnce folders{path};
  if (!path.empty() && sys::try_status(path)) sys::remove_file(path);
  bind_when_free(socket, object.local);
  if (path.empty()) return;
  if (loses_its_name(object)) connect_while_named(all, objects, index);
  if (!object.has_file) return sys::remove_file(path);
  if (!is_relative(path)) path = all.root + path;
  if (!object.file_path.empty()) {
    sys::rename_file(path, all.root + object.file_path);
    path = all.root + object.file_path;
  }
  sys::set_owner_and_mode(path, object.file_user, object.file_group, object.file_mode);
}

/// First those that leave their name to others.
void bind_to_names(DescriptorRebuild& all, const Objects& objects) {
  for (const bool stays : {false, true})
    for (std::size_t i = 0; i < objects.size(); ++i)
      if (objects[i]->family == AF_UNIX && !is_connection(*objects[i]) &&
          sys::has_name(objects[i]->local) && keeps_its_name(*objects[i]) == stays)
        bind_to_name(all, objects, i);
}

std::pair<sys::Fd, sys::Fd> make_pair(const state::SocketObjectT& object) {
  auto [a, b] = sys::make_connected_pair(object.type);
  return {std::move(a), std::move(b)};
}

/// Two connected ends; `named` gets the name, as a connection that was accepted has it.
std::pair<sys::Fd, sys::Fd> connect_by_name(const state::SocketObjectT& named,
                                            const state::SocketObjectT& other) {
  if (!sys::has_name(named.local)) return make_pair(named);
  // Whoever listened may be gone, or is bound to the name only afterwards.
  const sys::Fd listener = sys::make_socket({AF_UNIX, named.type, 0});
  sys::Fd client = sys::make_socket({AF_UNIX, named.type, 0});
  const std::string path = sys::path_of(named.local);
  const FoldersOnce folders{path};
  if (!path.empty() && sys::try_status(path)) sys::remove_file(path);
  if (sys::has_name(other.local)) sys::bind(client, other.local);
  sys::bind(listener, named.local);
  sys::listen(listener, 1);
  sys::connect(client, named.local);
  sys::Fd server = sys::accept_own(listener);
  if (!path.empty()) sys::remove_file(path);
  return {std::move(server), std::move(client)};
}

void finish_options(const sys::Fd& socket, const state::SocketObjectT& object) {
  if (sys::status(socket).st_uid != object.user) sys::change_owner(socket, object.user);
  rebuild_socket_options(socket, object, false);
}

void make_connections(DescriptorRebuild& all, const Objects& objects) {
  for (std::size_t i = 0; i < objects.size(); ++i) {
    const state::SocketObjectT& object = *objects[i];
    if (object.family != AF_UNIX || all.sockets[i]) continue;
    const auto peer = static_cast<std::size_t>(object.peer);
    const bool mutual = is_mutual(objects, i);
    if (object.peer_gone) {
      auto [ours, other] =
          object.type == SOCK_DGRAM ? make_pair(object) : connect_by_name(object, {});
      all.sockets[i] = std::move(ours);
      all.other_ends.emplace(i, std::move(other));
    } else if (mutual && object.type == SOCK_DGRAM) {
      auto [a, b] = make_pair(object);
      all.sockets[i] = std::move(a);
      all.sockets[peer] = std::move(b);
    } else if (mutual) {
      const bool first = sys::has_name(object.local);
      auto [named, other] =
          first ? connect_by_name(object, *objects[peer]) : connect_by_name(*objects[peer], object);
      all.sockets[first ? i : peer] = std::move(named);
      all.sockets[first ? peer : i] = std::move(other);
      finish_options(all.sockets[peer], *objects[peer]);
    } else {
      all.sockets[i] = make_socket_for(object);
      continue;
    }
    finish_options(all.sockets[i], object);
    if (mutual && object.type == SOCK_DGRAM) finish_options(all.sockets[peer], *objects[peer]);
  }
}

/// Whoever had the name may have ended since, such as a supervisor that was told of readiness: the
/// process finds that out where it sends next, as it would have.
void connect_outside(const sys::Fd& socket, const state::SocketObjectT& object) {
  const int error = sys::try_connect(socket, object.remote);
  if (error != ECONNREFUSED && error != ENOENT) {
    if (error != 0) sys::connect(socket, object.remote);
    return;
  }
  const sys::Fd gone = sys::make_socket({AF_UNIX, SOCK_DGRAM, 0});
  const std::array<std::uint8_t, sizeof(::sa_family_t)> any_name{AF_UNIX};
  sys::bind(gone, any_name);
  sys::connect(socket, sys::local_address(gone));
}

/// Of a process with relative names: its working directory, for our thread.
std::unique_ptr<sys::OwnWorkingDirectory> where_names_lead_from(const DescriptorRebuild& all) {
  const auto has_relative_name = [](const auto& object) {
    return object->family == AF_UNIX &&
           (is_relative(sys::path_of(object->local)) || is_relative(sys::path_of(object->remote)));
  };
  if (std::ranges::none_of(all.process.descriptors->sockets, has_relative_name)) return nullptr;
  return std::make_unique<sys::OwnWorkingDirectory>(all.root + all.process.working_directory->path);
}

}  // namespace

bool may_hold_descriptors(const DescriptorCapture& all, const FoundDescriptor& found) {
  if (!S_ISSOCK(found.status.st_mode) || std::ranges::count(all.capture.outside, found.number) != 0)
    return false;
  const sys::SocketKind kind = sys::socket_kind(found.copy);
  if (kind.family != AF_UNIX || sys::is_listening(found.copy) || !sys::has_input(found.copy))
    return false;
  const auto socket = sys::UnixSockets{}.find(found.status.st_ino);
  return !leads_outside(ends_of(all, found.status.st_ino, socket, kind.type), found.copy, kind.type,
                        found.number);
}

void rebuild_unix_sockets(DescriptorRebuild& all) {
  const Objects& objects = all.process.descriptors->sockets;
  const auto there = where_names_lead_from(all);
  make_connections(all, objects);
  bind_to_names(all, objects);
  for (std::size_t i = 0; i < objects.size(); ++i)
    if (!loses_its_name(*objects[i])) connect_waiting(all, objects, i);
  for (std::size_t i = 0; i < objects.size(); ++i) {
    const state::SocketObjectT& object = *objects[i];
    if (object.family != AF_UNIX || object.type != SOCK_DGRAM) continue;
    if (!object.remote.empty()) connect_outside(all.sockets[i], object);
    const auto peer = static_cast<std::size_t>(object.peer);
    if (object.peer >= 0 && !is_mutual(objects, i) && !loses_its_name(*objects[peer]))
      sys::connect(all.sockets[i], objects[peer]->local);
  }
}

namespace {

/// Who sends what waits in socket `index`: its other end, the one with that name, or a new one.
const sys::Fd& sender_of(DescriptorRebuild& all, std::size_t index,
                         const state::SocketMessageT& message, sys::Fd& scratch) {
  const Objects& objects = all.process.descriptors->sockets;
  const state::SocketObjectT& object = *objects[index];
  if (const auto other = all.other_ends.find(index); other != all.other_ends.end())
    return other->second;
  if (!message.from.empty()) {
    const auto named = std::ranges::find_if(
        objects, [&](const auto& candidate) { return candidate->local == message.from; });
    if (named == objects.end())
      throw Error{Errc::corrupt_image, "the image holds a message from nobody"};
    return all.sockets[static_cast<std::size_t>(named - objects.begin())];
  }
  const auto peer = static_cast<std::size_t>(object.peer);
  if (is_mutual(objects, index)) return all.sockets[peer];
  scratch = sys::make_socket({AF_UNIX, object.type, 0});
  return scratch;
}

}  // namespace

void fill_sockets(DescriptorRebuild& all, const std::vector<sys::Fd>& descriptions) {
  const state::DescriptorsT& image = *all.process.descriptors;
  if (all.sockets.empty()) return;
  const auto there = where_names_lead_from(all);
  for (std::size_t i = 0; i < image.sockets.size(); ++i) {
    const state::SocketObjectT& object = *image.sockets[i];
    for (const auto& message : object.messages) {
      sys::Fd scratch;
      const sys::Fd& sender = sender_of(all, i, *message, scratch);
      const sys::RoomToSend room{sender};
      std::vector<int> passed;
      for (const int number : message->descriptors) {
        const auto index = description_behind(image, number);
        const int ours = index ? descriptions[*index].get() : -1;
        if (ours < 0)
          throw Error{Errc::incompatible,
                      fmt::format("fd {}: waits in a socket, and is to be closed", number)};
        passed.push_back(ours);
      }
      std::optional<sys::Credentials> credentials;
      if (message->has_credentials)
        credentials = sys::Credentials{all.pid, message->user, message->group};
      const bool by_name =
          all.other_ends.count(i) == 0 && object.type == SOCK_DGRAM && sys::has_name(object.local);
      sys::send_message(
          sender, message->bytes, passed, credentials,
          by_name ? std::span<const std::uint8_t>{object.local} : std::span<const std::uint8_t>{});
    }
  }
  for (std::size_t i = 0; i < image.sockets.size(); ++i) fill_tcp_connection(all, i);
  for (std::size_t i = 0; i < image.sockets.size(); ++i) {
    const state::SocketObjectT& object = *image.sockets[i];
    // A connection with others tells its peer only once the process runs.
    const int shut = object.connection ? object.shut & 1 : object.shut;
    if (shut != 0 && !is_found_reset(object, all.options)) sys::shut_down(all.sockets[i], shut);
    rebuild_socket_options(all.sockets[i], object, true);
  }
  all.other_ends.clear();
}

namespace {

/// Only a socket that nobody has any more may lie there.
void check_place(const std::string& path, int type, bool stays, const std::string& who,
                 Refusals& refusals) {
  const auto status = sys::try_status(path);
  if (!status) {
    const std::string there = existing_folder("", path);
    if (stays && path.find('/', there.size()) != std::string::npos)
      refusals.add("{}: unix socket: {}: the folder does not exist", who, path);
    else if (!sys::can_make_files_in(there))
      refusals.add("{}: unix socket: {}: could not be made in {}", who, path, there);
    return;
  }
  if (!S_ISSOCK(status->st_mode))
    return refusals.add("{}: unix socket: {} is in its way, which is no socket", who, path);
  if (sys::file_is_alive(path, type))
    refusals.add_transient("{}: unix socket: {} is in use here: end the process that has it", who,
                           path);
}

}  // namespace

void check_unix_socket(const state::SocketObjectT& object, const std::string& folder,
                       const std::string& who, Refusals& refusals) {
  if (!sys::has_name(object.local)) return;
  const std::string path = sys::path_of(object.local);
  if (path.empty()) {
    if (sys::name_is_alive(object.local, object.type))
      refusals.add_transient("{}: unix socket: {} is in use here: end the process that has it", who,
                             sys::address_text(object.local));
    return;
  }
  check_place(is_relative(path) ? folder + "/" + path : path, object.type, keeps_its_name(object),
              who, refusals);
  if (!object.file_path.empty()) check_place(object.file_path, object.type, true, who, refusals);
}

namespace {

void finish(const DescriptorFinish& stage, const state::DescriptionT& description, int number) {
  const state::SocketObjectT& object = object_of(stage.image, description);
  if (object.listening)  // by the process itself, whose credentials those who connect see
    stage.calls.call("listen at a socket", SYS_listen,
                     {static_cast<std::uint64_t>(number), object.backlog});
}

}  // namespace

const DescriptorRoom unix_socket_room{is_unix_socket, capture_unix_socket, state::Open::Socket,
                                      rebuild_socket, finish};

}  // namespace icecore
