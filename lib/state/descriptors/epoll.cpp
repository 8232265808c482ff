// SPDX-License-Identifier: Apache-2.0
//
// An epoll instance, with its watches added anew by the process itself: under the same numbers,
// also when such a number leads elsewhere by now or nowhere.
//
// What is ready is reported once more with EPOLLET, as if it had just become so: a program has to
// expect that at any time, and the opposite, a report that never comes, would be worse.
#include "sys/epoll.hpp"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <set>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace epoll {

/// Not events but how they are to be reported.
constexpr std::uint32_t kFlags = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
constexpr std::uint32_t kAnything = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDNORM | EPOLLRDBAND |
                                    EPOLLWRNORM | EPOLLWRBAND | EPOLLRDHUP;

/// EPOLLONESHOT, and it has been.
bool has_fired(std::uint32_t events) {
  return (events & EPOLLONESHOT) != 0 && (events & ~kFlags) == 0;
}

std::uint64_t number(int descriptor) { return static_cast<std::uint64_t>(descriptor); }

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return open.link == "anon_inode:[eventpoll]";
}

/// A descriptor that leads to what is watched; -1: none does.
int find_watched(const DescriptorCapture& all, int epoll, const sys::EpollWatch& watch) {
  const auto is_it = [&](const FoundDescriptor& found) {
    return found.number < kInFlight && found.status.st_ino == watch.inode &&
           sys::watches(all.capture.pid, epoll, watch, found.number);
  };
  const auto same_number = std::ranges::find(all.found, watch.number, &FoundDescriptor::number);
  if (same_number != all.found.end() && is_it(*same_number)) return watch.number;
  const auto other = std::ranges::find_if(all.found, is_it);
  return other == all.found.end() ? -1 : other->number;
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  if (sys::polls_busily(open.copy))
    throw Error{Errc::unsupported, "epoll: polls busily (EPIOCSPARAMS): cannot be snapshotted yet"};
  state::EpollT epoll;
  for (const sys::EpollWatch& watch : sys::epoll_watches(open.info)) {
    const int via = find_watched(all, open.number, watch);
    if (via < 0)
      throw Error{
          Errc::unsupported,
          fmt::format("epoll: watches what was fd {}, to which no descriptor of the process "
                      "leads any more: cannot be snapshotted",
                      watch.number)};
    epoll.watches.emplace_back(watch.data, watch.number, via, watch.events);
  }
  return opened(std::move(epoll));
}

sys::Fd rebuild(DescriptorRebuild&, const state::DescriptionT& description, int) {
  sys::Fd fd = sys::make_epoll();
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

// ---- in the process -----------------------------------------------------------------------------

std::uint64_t put_event(CallList& list, std::uint32_t events, std::uint64_t data) {
  ::epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return list.put_value(event);
}

constexpr std::size_t kEventBytes = 64;

/// Lets `number` lead to what is watched for as long as `add` takes.
void with_number(const DescriptorFinish& stage, const state::EpollWatch& watch,
                 const std::function<void()>& add) {
  if (watch.number() == watch.via()) return add();
  const state::Descriptor* const taken = find_descriptor(stage.image, watch.number());
  const bool in_use = taken != nullptr && stage.is_open[taken->description()];
  const std::uint64_t spare = number(stage.spare);
  if (in_use) stage.calls.call("put a descriptor aside", SYS_dup2, {number(watch.number()), spare});
  stage.calls.call("lend a number", SYS_dup2, {number(watch.via()), number(watch.number())});
  add();
  if (!in_use) return stage.calls.call("give a number back", SYS_close, {number(watch.number())});
  stage.calls.call("give a number back", SYS_dup3,
                   {spare, number(watch.number()),
                    taken->close_on_exec() ? static_cast<std::uint64_t>(O_CLOEXEC) : 0});
  stage.calls.call("give a number back", SYS_close, {spare});
}

void add_watch(const DescriptorFinish& stage, int epoll, const state::EpollWatch& watch) {
  with_number(stage, watch, [&] {
    CallList& list = stage.calls.room(1, kEventBytes);
    list.call("watch a descriptor", SYS_epoll_ctl,
              {number(epoll), EPOLL_CTL_ADD, number(watch.number()),
               put_event(list, watch.events(), watch.data())});
  });
}

/// Lets it fire by waiting for anything.  What is not ready for anything goes on to wait for errors
/// and hang-ups, which the kernel adds by itself.
void add_fired_watch(const DescriptorFinish& stage, int epoll, const state::EpollWatch& watch) {
  stage.calls.run();
  with_number(stage, watch, [&] {
    CallList& list = stage.calls.room(2, 2 * kEventBytes);
    list.call("watch a descriptor", SYS_epoll_ctl,
              {number(epoll), EPOLL_CTL_ADD, number(watch.number()),
               put_event(list, watch.events() | kAnything, watch.data())});
    const std::size_t wait =
        list.try_call(SYS_epoll_wait, {number(epoll), list.reserve(kEventBytes), 1, 0});
    if (stage.calls.run_for(wait) != 0) return;
    CallList& again = stage.calls.room(1, kEventBytes);
    again.call("watch a descriptor", SYS_epoll_ctl,
               {number(epoll), EPOLL_CTL_MOD, number(watch.number()),
                put_event(again, watch.events(), watch.data())});
  });
}

void finish(const DescriptorFinish& stage, const state::DescriptionT& description, int epoll) {
  const auto& watches = description.open.AsEpoll()->watches;
  const auto is_there = [&](const state::EpollWatch& watch) {
    const state::Descriptor* const via = find_descriptor(stage.image, watch.via());
    return via != nullptr && stage.is_open[via->description()];
  };
  for (const bool fired : {true, false})  // those that fired while nothing else is there to fire
    for (const state::EpollWatch& watch : watches) {
      if (has_fired(watch.events()) != fired || !is_there(watch)) continue;
      fired ? add_fired_watch(stage, epoll, watch) : add_watch(stage, epoll, watch);
    }
}

}  // namespace epoll

const DescriptorRoom epoll_room{epoll::matches, epoll::capture, state::Open::Epoll, epoll::rebuild,
                                epoll::finish};

}  // namespace icecore
