// SPDX-License-Identifier: Apache-2.0
#include "state/descriptors/descriptors.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "state/descriptors/ownership.hpp"
#include "state/descriptors/room.hpp"
#include "state/descriptors/sockets.hpp"
#include "state/file_table.hpp"
#include "state/invocation.hpp"
#include "state/terminal.hpp"
#include "sys/check.hpp"
#include "sys/epoll.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"
#include "sys/terminal.hpp"

namespace icecore {
namespace {

constexpr std::size_t kSentAtOnce = 24;  // see DescriptorPlan::send
static_assert(kSentAtOnce <= sys::kMaxSentDescriptors);

/// The first that matches is the room of a description.
constexpr std::array kRooms{&path_only_room, &kernel_file_room, &regular_file_room, &directory_room,
                            &device_room,    &pipe_room,        &fifo_room,         &eventfd_room,
                            &epoll_room,     &timerfd_room,     &signalfd_room,     &pidfd_room,
                            &inotify_room,   &unix_socket_room, &inet_socket_room,  &pty_room,
                            &external_room};

struct UnknownKind {
  std::string_view link;
  const char* name;
};
/// What has no room yet, for people.
constexpr std::array kUnknown{
    UnknownKind{"anon_inode:[fanotify]", "fanotify"},
    UnknownKind{"anon_inode:[io_uring]", "io_uring instance"},
    UnknownKind{"anon_inode:[userfaultfd]", "userfaultfd"},
    UnknownKind{"anon_inode:[perf_event]", "perf event"},
    UnknownKind{"anon_inode:bpf", "BPF object"},
    UnknownKind{"anon_inode:[landlock-ruleset]", "landlock ruleset"},
};

std::string kind_of(const std::string& link) {
  for (const UnknownKind& kind : kUnknown)
    if (link.starts_with(kind.link)) return kind.name;
  return link;
}

std::vector<FoundDescriptor> find_all(Capture& capture) {
  std::vector<FoundDescriptor> all;
  for (const int number : sys::list_descriptors(capture.pid)) {
    FoundDescriptor found{.number = number,
                          .copy = sys::copy_descriptor(capture.pidfd, number),
                          .status = {},
                          .flags = 0};
    found.status = sys::status(found.copy);
    found.flags = sys::status_flags(found.copy);
    all.push_back(std::move(found));
  }
  return all;
}

bool is_among(const std::vector<FoundDescriptor>& all, const sys::Fd& file,
              const sys::FileStatus& status) {
  return std::ranges::any_of(all, [&](const FoundDescriptor& found) {
    return found.status.st_ino == status.st_ino && found.status.st_dev == status.st_dev &&
           sys::same_open_file(found.copy, file);
  });
}

/// Adds what waits in sockets and has no number, also in such sockets themselves.
void find_in_flight(DescriptorCapture& shared, std::vector<FoundDescriptor>& all) {
  int next = kInFlight;
  const auto look_into = [&](std::size_t index) {
    if (!may_hold_descriptors(shared, all[index])) return;
    const auto [messages, fresh] = shared.messages.try_emplace(all[index].status.st_ino);
    if (!fresh) return;
    messages->second = sys::peek_messages(all[index].copy);
    for (const sys::SocketMessage& message : messages->second)
      for (const sys::Fd& passed : message.descriptors) {
        const sys::FileStatus status = sys::status(passed);
        if (!is_among(all, passed, status))
          all.push_back({.number = next++,
                         .copy = sys::duplicate(passed.get()),
                         .status = status,
                         .flags = sys::status_flags(passed)});
      }
  };
  // What is found may be the other end of one that seemed to lead outside.
  std::size_t known = 0;
  do {
    known = all.size();
    for (std::size_t i = 0; i < all.size(); ++i) look_into(i);
  } while (all.size() != known);
}

bool is_in_flight(int number) { return number >= kInFlight; }

std::string name_of(int number) {
  return is_in_flight(number) ? "a descriptor that waits in a unix socket and is open nowhere else"
                              : fmt::format("fd {}", number);
}

/// Kinds that are as they were without the last step, which only a descriptor of the process can
/// have.
bool may_be_in_flight(state::Open kind) {
  constexpr std::array kKinds{
      state::Open::RegularFile, state::Open::Directory, state::Open::Device,
      state::Open::Pipe,        state::Open::EventFd,   state::Open::SignalFd,
      state::Open::PathOnly,    state::Open::Fifo,      state::Open::Socket};
  return std::ranges::find(kKinds, kind) != kKinds.end();
}

bool may_be_in_flight(const state::DescriptorsT& image, const state::DescriptionT& description) {
  const auto is_lease = [](const state::FileLock& lock) {
    return lock.kind() == state::LockKind::lease || lock.kind() == state::LockKind::process;
  };
  if (description.async || description.owner_signal != 0 ||
      description.owner != state::SignalOwner::none ||
      std::ranges::any_of(description.locks, is_lease))
    return false;
  if (description.open.type != state::Open::Socket) return may_be_in_flight(description.open.type);
  const state::SocketObjectT& socket = object_of(image, description);
  return socket.family == AF_UNIX && !socket.listening;
}

/// Messages name what has no number by its description.
void name_in_flight(state::DescriptorsT& image, const std::map<int, std::uint32_t>& in_flight) {
  for (const auto& socket : image.sockets)
    for (const auto& message : socket->messages)
      for (int& number : message->descriptors)
        if (const auto at = in_flight.find(number); at != in_flight.end())
          number = -1 - static_cast<int>(at->second);
}

/// Gives equal numbers to descriptors of one description: the index of the lowest of them.
std::vector<std::size_t> group_by_description(pid_t pid, std::span<const FoundDescriptor> all) {
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), 0U);
  // Only descriptors of one inode can be the same; those are put in the kernel's order.
  const auto before = [&](std::size_t a, std::size_t b) {
    const auto key = [&](std::size_t i) {
      return std::tuple{all[i].status.st_dev, all[i].status.st_ino};
    };
    if (key(a) != key(b)) return key(a) < key(b);
    const int kernels = sys::compare_descriptors(pid, all[a].number, all[b].number);
    return kernels != 0 ? kernels < 0 : a < b;
  };
  std::ranges::sort(order, before);
  std::vector<std::size_t> lowest(all.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const bool same =
        i > 0 && all[order[i]].status.st_ino == all[order[i - 1]].status.st_ino &&
        sys::compare_descriptors(pid, all[order[i]].number, all[order[i - 1]].number) == 0;
    lowest[order[i]] = same ? lowest[order[i - 1]] : order[i];
  }
  return lowest;
}

/// Unless it is a pair of its own.
void note_terminal(DescriptorCapture& shared) {
  const auto stat = sys::read_stat(shared.capture.pid);
  if (!stat || stat->terminal == 0) return;
  for (const FoundDescriptor& found : shared.found)
    if (const auto number = sys::pair_number(found.copy);
        number && ::makedev(136, *number) == stat->terminal)
      return;
  shared.terminal = std::make_unique<state::TerminalT>();
  shared.terminal->foreground = stat->foreground == stat->group;
  for (const FoundDescriptor& found : shared.found) {
    if (terminal_device(found.status, stat->terminal) != stat->terminal) continue;
    const auto settings = sys::terminal_settings(found.copy);
    shared.terminal->settings.assign(settings.begin(), settings.end());
    const sys::WindowSize window = sys::window_size(found.copy);
    shared.terminal->rows = window.rows;
    shared.terminal->columns = window.columns;
    return;
  }
}

void note_pipe_ends(const std::vector<FoundDescriptor>& all, DescriptorCapture& shared) {
  for (const FoundDescriptor& found : all) {
    if (!S_ISFIFO(found.status.st_mode)) continue;
    const int access = found.flags & O_ACCMODE;
    if (access != O_WRONLY) shared.readable_pipes.insert(found.status.st_ino);
    if (access != O_RDONLY) shared.writable_pipes.insert(found.status.st_ino);
  }
}

state::OpenUnion capture_one(DescriptorCapture& shared, const OpenDescription& open) {
  if (std::ranges::find(shared.capture.outside, open.number) != shared.capture.outside.end() ||
      is_invocation_file(open.link))
    return external_room.capture(shared, open);
  for (const DescriptorRoom* room : kRooms) {
    if (!room->matches(shared, open)) continue;
    if (is_in_flight(open.number) && !may_be_in_flight(room->kind))
      throw Error{Errc::unsupported,
                  fmt::format("{}: cannot be snapshotted yet", state::EnumNameOpen(room->kind))};
    return room->capture(shared, open);
  }
  throw Error{Errc::unsupported,
              fmt::format("{}: cannot be snapshotted yet: close it before, or do without it",
                          kind_of(open.link))};
}

const DescriptorRoom& room_of(state::Open kind) {
  const auto room = std::ranges::find(kRooms, kind, [](const auto* r) { return r->kind; });
  ICECORE_CHECK(room != kRooms.end());
  return **room;
}

/// Lowest number of each description, -1 where none leads to it.
std::vector<int> lowest_numbers(const state::DescriptorsT& image) {
  std::vector<int> lowest(image.descriptions.size(), -1);
  for (const state::Descriptor& descriptor : image.descriptors) {
    int& known = lowest[descriptor.description()];
    if (known < 0) known = descriptor.number();
  }
  return lowest;
}

/// Descriptions that messages name.
std::set<std::uint32_t> waiting_in_sockets(const state::DescriptorsT& image) {
  std::set<std::uint32_t> waiting;
  for (const auto& socket : image.sockets)
    for (const auto& message : socket->messages)
      for (const int number : message->descriptors)
        if (const auto index = description_behind(image, number)) waiting.insert(*index);
  return waiting;
}

/// What the caller has put in the place of a descriptor may be something that epoll does not take.
void refuse_unwatchable(const state::DescriptorsT& image,
                        const std::vector<sys::Fd>& descriptions) {
  for (const auto& description : image.descriptions) {
    const auto* epoll = description->open.AsEpoll();
    if (epoll == nullptr) continue;
    for (const state::EpollWatch& watch : epoll->watches) {
      const auto* watched = find_descriptor(image, watch.via());
      if (watched == nullptr) continue;
      const sys::Fd& ours = descriptions[watched->description()];
      if (image.descriptions[watched->description()]->open.type == state::Open::External && ours &&
          !sys::can_be_watched(ours))
        throw Error{Errc::incompatible,
                    fmt::format("fd {}: is watched by epoll; what is to take its place cannot be "
                                "(a regular file, /dev/null): give a pipe, a socket or a terminal",
                                watch.via())};
    }
  }
}

/// A standard stream is attached to the caller's stream of the same number, whether or not it was
/// the same description as another: a terminal is usually one for all three.
bool is_standard_stream(const state::DescriptionT& description, int number) {
  return number <= 2 && description.open.type == state::Open::External;
}

/// Whether each restore has something of its own to put in its place.
bool has_successor(const state::ExternalT& external, int number) {
  return (external.standard && number <= 2) || is_invocation_file(external.what);
}

}  // namespace

std::optional<std::uint32_t> description_behind(const state::DescriptorsT& image, int number) {
  if (number < 0) return static_cast<std::uint32_t>(-1 - number);
  const state::Descriptor* const descriptor = find_descriptor(image, number);
  return descriptor == nullptr ? std::nullopt : std::optional{descriptor->description()};
}

const state::Descriptor* find_descriptor(const state::DescriptorsT& image, int number) {
  const auto at = std::ranges::lower_bound(image.descriptors, number, {},
                                           [](const state::Descriptor& d) { return d.number(); });
  return at != image.descriptors.end() && at->number() == number ? &*at : nullptr;
}

std::unique_ptr<state::DescriptorsT> capture_descriptors(
    Capture& capture, std::unique_ptr<state::TerminalT>& terminal) {
  auto image = std::make_unique<state::DescriptorsT>();
  std::vector<FoundDescriptor> all = find_all(capture);
  const std::size_t numbered = all.size();
  DescriptorCapture shared{.capture = capture, .found = all, .terminal = terminal};
  find_in_flight(shared, all);
  note_terminal(shared);
  std::vector<std::size_t> lowest =
      group_by_description(capture.pid, std::span{all}.first(numbered));
  for (std::size_t i = numbered; i < all.size(); ++i) lowest.push_back(i);
  note_pipe_ends(all, shared);

  std::map<std::size_t, std::uint32_t> description_of;  // by index of the lowest descriptor
  std::map<int, std::uint32_t> in_flight;               // by the numbers that stand for them
  for (std::size_t i = 0; i < all.size(); ++i) {
    const int number = all[i].number;
    const pid_t holder = is_in_flight(number) ? sys::current_process() : capture.pid;
    const int held = is_in_flight(number) ? all[i].copy.get() : number;
    const std::string place = fmt::format("/proc/{}/fd/{}", holder, held);
    OpenDescription open{.number = number,
                         .place = place,
                         .link = sys::read_link(place),
                         .copy = all[i].copy,
                         .status = all[i].status,
                         .flags = all[i].flags,
                         .info = sys::DescriptorInfo{holder, held}};
    auto known = description_of.find(lowest[i]);
    if (known == description_of.end() ||
        is_standard_stream(*image->descriptions[known->second], number)) {
      auto description = std::make_unique<state::DescriptionT>();
      description->flags = static_cast<std::uint32_t>(open.flags & ~O_ASYNC);
      try {
        description->open = capture_one(shared, open);
        capture_ownership(shared, open, *description);
      } catch (const Error& e) {
        capture.refusals.add("{}: {}", name_of(number), e.what());
        continue;
      }
      const auto index = static_cast<std::uint32_t>(image->descriptions.size());
      image->descriptions.push_back(std::move(description));
      if (known == description_of.end())
        known = description_of.emplace(lowest[i], index).first;
      else
        known->second = index;
    }
    if (is_in_flight(number))
      in_flight.emplace(number, known->second);
    else
      image->descriptors.emplace_back(number, known->second, open.info.close_on_exec());
  }
  try {
    refuse_mixed_pipes(shared);
  } catch (const Error& e) {
    capture.refusals.add("{}", e.what());
  }
  image->pipes = std::move(shared.pipes);
  image->sockets = std::move(shared.sockets);
  for (const auto& [number, index] : in_flight)
    if (const state::DescriptionT& description = *image->descriptions[index];
        !may_be_in_flight(*image, description))
      capture.refusals.add("{}: {}: cannot be snapshotted yet", name_of(number),
                           state::EnumNameOpen(description.open.type));
  name_in_flight(*image, in_flight);
  image->ptys = std::move(shared.ptys);
  return image;
}

std::vector<sys::Fd> rebuild_descriptions(const state::ProcessT& process,
                                          const RestoreOptions& options, const std::string& root,
                                          pid_t pid, const FileOpener& open_file) {
  DescriptorRebuild shared{process, options, root, pid, open_file};
  const state::DescriptorsT& image = *process.descriptors;
  const std::vector<int> lowest = lowest_numbers(image);
  std::vector<sys::Fd> descriptions;
  const std::set<std::uint32_t> in_flight = waiting_in_sockets(image);
  for (std::size_t i = 0; i < image.descriptions.size(); ++i) {
    const state::DescriptionT& description = *image.descriptions[i];
    const bool waits = lowest[i] < 0 && in_flight.contains(static_cast<std::uint32_t>(i));
    if (waits && !may_be_in_flight(image, description))
      throw Error{Errc::corrupt_image,
                  "the image has a descriptor in a socket that cannot be there"};
    descriptions.push_back(
        lowest[i] < 0 && !waits
            ? sys::Fd{}
            : room_of(description.open.type).rebuild(shared, description, lowest[i]));
    if (descriptions.back()) take_locks(descriptions.back(), description, lowest[i]);
  }
  fill_sockets(shared, descriptions);
  for (std::size_t i = 0; i < descriptions.size(); ++i)
    if (lowest[i] < 0) descriptions[i] = {};  // the process has it only when it receives it
  settle_pairs(shared);
  refuse_unwatchable(image, descriptions);
  return descriptions;
}

void check_descriptors(const state::ProcessT& process, const RestoreOptions& options,
                       Refusals& refusals) {
  const state::DescriptorsT& image = *process.descriptors;
  const std::vector<int> lowest = lowest_numbers(image);
  const std::set<std::uint32_t> in_flight = waiting_in_sockets(image);
  const auto check_directory = [&](const state::DirectoryT& directory, const std::string& who) {
    const auto status = sys::try_status(directory.path);
    if (!status || !S_ISDIR(status->st_mode))
      refusals.add("{}: {}: is no directory here", who, directory.path);
  };
  const auto check_type = [&](const std::string& path, std::uint32_t mode, const std::string& who) {
    const auto status = sys::try_link_status(path);
    if (!status)
      refusals.add("{}: {}: does not exist", who, path);
    else if ((status->st_mode & S_IFMT) != (mode & S_IFMT))
      refusals.add("{}: {}: is of another type here", who, path);
  };
  for (std::size_t i = 0; i < image.descriptions.size(); ++i) {
    const state::DescriptionT& description = *image.descriptions[i];
    const int number = lowest[i];
    if (number < 0 && !in_flight.contains(static_cast<std::uint32_t>(i))) continue;
    const std::string who = number < 0 ? name_of(kInFlight) : fmt::format("fd {}", number);
    const auto check_deleted = [&](const std::string& path) {
      if (const std::string folder = existing_folder("", path); !sys::can_make_files_in(folder))
        refusals.add("{}: {}: had been deleted; another could not be made in {}", who, path,
                     folder);
    };
    if (const auto* directory = description.open.AsDirectory())
      directory->deleted ? check_deleted(directory->path) : check_directory(*directory, who);
    if (description.open.type == state::Open::Socket) {
      const state::SocketObjectT& socket = object_of(image, description);
      check_unix_socket(socket, process.working_directory->path, who, refusals);
      check_inet_socket(socket, options, who, refusals);
    }
    if (const auto* place = description.open.AsPathOnly())
      check_type(place->path, place->mode, who);
    if (const auto* inotify = description.open.AsInotify())
      for (const auto& watch : inotify->watches)
        if (!sys::try_link_status(watch->path))
          refusals.add("fd {}: inotify: {}, which it watches, does not exist", number, watch->path);
    if (const auto* fifo = description.open.AsFifo())
      fifo->deleted ? check_deleted(fifo->path) : check_type(fifo->path, S_IFIFO, who);
    if (const auto* external = description.open.AsExternal();
        external != nullptr && external->controlling && number > 2) {
      if (!options.external.contains(number) && !sys::own_terminal())
        refusals.add(
            "fd {}: led to the controlling terminal ({}), and whoever restores has none: restore "
            "in a terminal (script -qc 'icecore restore …' makes one), or say what takes its place "
            "with --external {}=PATH, {}=fd:M or {}=close",
            number, external->what, number, number, number);
      continue;
    }
    if (const auto* external = description.open.AsExternal(); external != nullptr &&
                                                              !options.external.contains(number) &&
                                                              !has_successor(*external, number))
      refusals.add(
          "fd {}: led outside the process ({}): say what takes its place with "
          "--external {}=PATH, {}=fd:M or {}=close",
          number, external->what, number, number, number);
  }
  check_directory(*process.working_directory, "working directory");
  for (const auto& [number, external] : options.external)
    if (const auto* ours = std::get_if<int>(&external.target);
        ours != nullptr && !sys::is_open(*ours))
      refusals.add("fd {}: descriptor {} of icecore, which is to take its place, is not open",
                   number, *ours);
}

void rebuild_signal_owners(const state::DescriptorsT& image,
                           const std::vector<sys::Fd>& descriptions,
                           const std::vector<pid_t>& threads) {
  for (std::size_t i = 0; i < descriptions.size(); ++i)
    if (descriptions[i]) rebuild_signal_owner(descriptions[i], *image.descriptions[i], threads);
}

void settle_descriptors(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                        const std::string& root) {
  settle_sockets(image, descriptions);
  rebuild_watches(image, descriptions, root);
}

void release_connections(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                         const RestoreOptions& options) {
  release_tcp_connections(image, descriptions, options);
}

void receive_descriptors(int socket, std::size_t total, CallStream& calls) {
  for (std::size_t sent = 0; sent < total; sent += kSentAtOnce) {
    const std::size_t count = std::min(kSentAtOnce, total - sent);
    const std::size_t control_bytes = CMSG_SPACE(count * sizeof(int));
    CallList& list = calls.room(1, control_bytes + 256);
    ::iovec part{};
    part.iov_base = reinterpret_cast<void*>(list.reserve(8));
    part.iov_len = 1;
    ::msghdr message{};
    message.msg_iov = reinterpret_cast<::iovec*>(list.put_value(part));
    message.msg_iovlen = 1;
    message.msg_control = reinterpret_cast<void*>(list.reserve(control_bytes));
    message.msg_controllen = control_bytes;
    list.call("receive descriptors", SYS_recvmsg,
              {static_cast<std::uint64_t>(socket), list.put_value(message), 0});
  }
}

DescriptorPlan::DescriptorPlan(const state::DescriptorsT& image,
                               const std::vector<sys::Fd>& descriptions, std::size_t files)
    : image_(image), file_slots_(files, -1), description_slots_(descriptions.size(), -1) {
  const std::vector<int> lowest = lowest_numbers(image);
  const auto open = static_cast<std::size_t>(
      std::ranges::count_if(descriptions, [](const sys::Fd& fd) { return bool{fd}; }));
  arrivals_.resize(open + files);
  const auto slots = static_cast<int>(arrivals_.size());

  for (std::size_t i = 0; i < descriptions.size(); ++i)
    if (descriptions[i] && lowest[i] < slots) {
      description_slots_[i] = lowest[i];
      arrivals_[static_cast<std::size_t>(lowest[i])].index = static_cast<int>(i);
    }
  auto free = arrivals_.begin();
  const auto take_free = [&](bool is_file, std::size_t index) {
    free = std::find_if(free, arrivals_.end(), [](const Arrival& a) { return a.index < 0; });
    ICECORE_CHECK(free != arrivals_.end());
    *free = {is_file, static_cast<int>(index)};
    return static_cast<int>(free - arrivals_.begin());
  };
  for (std::size_t i = 0; i < descriptions.size(); ++i)
    if (descriptions[i] && description_slots_[i] < 0) description_slots_[i] = take_free(false, i);
  for (std::size_t i = 0; i < files; ++i) file_slots_[i] = take_free(true, i);

  const int highest = image.descriptors.empty() ? -1 : image.descriptors.back().number();
  socket_slot_ = std::max(slots, highest + 1);
}

void DescriptorPlan::send(const sys::Fd& socket, const std::vector<sys::Fd>& descriptions,
                          const std::function<sys::Fd(std::size_t)>& open) const {
  for (std::size_t sent = 0; sent < arrivals_.size(); sent += kSentAtOnce) {
    std::vector<sys::Fd> opened;
    std::vector<int> numbers;
    for (std::size_t i = sent; i < std::min(sent + kSentAtOnce, arrivals_.size()); ++i) {
      const auto index = static_cast<std::size_t>(arrivals_[i].index);
      if (arrivals_[i].is_file) opened.push_back(open(index));
      numbers.push_back(arrivals_[i].is_file ? opened.back().get() : descriptions[index].get());
    }
    sys::send_descriptors(socket, numbers);
  }
}

void DescriptorPlan::receive(int socket, CallStream& calls) const {
  const auto at = static_cast<std::uint64_t>(socket_slot_);
  if (socket != socket_slot_)
    calls.call("move a descriptor", SYS_dup2, {static_cast<std::uint64_t>(socket), at});
  if (socket_slot_ > 0) calls.call("close descriptors", SYS_close_range, {0, at - 1, 0});
  calls.call("close descriptors", SYS_close_range, {at + 1, ~0U, 0});
  receive_descriptors(socket_slot_, arrivals_.size(), calls);
}

void DescriptorPlan::place(CallStream& calls) const {
  const auto unsigned_of = [](int number) { return static_cast<std::uint64_t>(number); };
  const std::vector<int> lowest = lowest_numbers(image_);
  std::set<int> in_use;

  // First those that are to leave the slots; their numbers lie behind them.
  for (std::size_t i = 0; i < lowest.size(); ++i) {
    if (description_slots_[i] < 0) continue;
    if (description_slots_[i] != lowest[i])
      calls.call("place a descriptor", SYS_dup2,
                 {unsigned_of(description_slots_[i]), unsigned_of(lowest[i])});
    in_use.insert(lowest[i]);
  }
  for (int slot = 0; slot < static_cast<int>(arrivals_.size()); ++slot)
    if (!in_use.contains(slot)) calls.call("close a descriptor", SYS_close, {unsigned_of(slot)});

  for (const state::Descriptor& descriptor : image_.descriptors) {
    const int from = lowest[descriptor.description()];
    if (description_slots_[descriptor.description()] < 0) continue;
    if (descriptor.number() != from)
      calls.call("duplicate a descriptor", SYS_dup3,
                 {unsigned_of(from), unsigned_of(descriptor.number()),
                  descriptor.close_on_exec() ? static_cast<std::uint64_t>(O_CLOEXEC) : 0});
    else if (descriptor.close_on_exec())
      calls.call("mark a descriptor", SYS_fcntl, {unsigned_of(from), F_SETFD, FD_CLOEXEC});
  }
}

void DescriptorPlan::finish(CallStream& calls) const {
  const std::vector<int> lowest = lowest_numbers(image_);
  std::vector<bool> is_open;
  for (const int slot : description_slots_) is_open.push_back(slot >= 0);
  const DescriptorFinish stage{image_, is_open, socket_slot_ + 1, calls};
  for (std::size_t i = 0; i < lowest.size(); ++i) {
    const state::DescriptionT& description = *image_.descriptions[i];
    const auto finish = room_of(description.open.type).finish;
    if (is_open[i] && finish != nullptr) finish(stage, description, lowest[i]);
  }
  finish_pairs(stage);
  for (std::size_t i = 0; i < lowest.size(); ++i)
    if (is_open[i]) finish_ownership(stage, *image_.descriptions[i], lowest[i]);
}

}  // namespace icecore
