// SPDX-License-Identifier: Apache-2.0
//
// inotify: watches by the paths that lead to what they watch.  What happens between the snapshot
// and the restore is not told.
#include "sys/inotify.hpp"

#include <algorithm>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace inotify {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return open.link == "anon_inode:inotify";
}

/// A file that the process has open may have no name in memory but the one it was opened by.
std::optional<std::string> find_among_open(const DescriptorCapture& all,
                                           const sys::InotifyWatch& watch) {
  for (const FoundDescriptor& found : all.found) {
    if (found.status.st_ino != watch.inode || found.status.st_dev != watch.device) continue;
    auto path = sys::try_read_link(fmt::format("/proc/{}/fd/{}", all.capture.pid, found.number));
    if (path && sys::leads_to_watched(*path, watch)) return path;
  }
  return std::nullopt;
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  if (sys::bytes_waiting(open.copy) != 0)
    throw Error{Errc::unsupported,
                "inotify: events wait in it, which would be lost: snapshot the process again when "
                "it has read them"};
  state::InotifyT inotify;
  for (const sys::InotifyWatch& watch : sys::inotify_watches(all.capture.pid, open.number)) {
    auto path = find_among_open(all, watch);
    if (!path) path = sys::find_watched(watch);
    if (!path)
      throw Error{Errc::unsupported,
                  fmt::format("inotify: no path is known that leads to what watch {} is on "
                              "(inode {}; needs CAP_DAC_READ_SEARCH)",
                              watch.descriptor, watch.inode)};
    auto noted = std::make_unique<state::InotifyWatchT>();
    noted->descriptor = watch.descriptor;
    noted->mask = watch.mask;
    noted->path = *std::move(path);
    inotify.watches.push_back(std::move(noted));
  }
  return opened(std::move(inotify));
}

sys::Fd rebuild(DescriptorRebuild&, const state::DescriptionT& description, int) {
  sys::Fd fd = sys::make_inotify();
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace inotify

void rebuild_watches(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                     const std::string& root) {
  for (std::size_t i = 0; i < descriptions.size(); ++i) {
    const auto* const inotify = image.descriptions[i]->open.AsInotify();
    if (inotify == nullptr || !descriptions[i]) continue;
    int next = 1;
    for (const auto& watch : inotify->watches)
      sys::add_watch(descriptions[i], root + watch->path, watch->mask, watch->descriptor, next);
  }
}

const DescriptorRoom inotify_room{inotify::matches, inotify::capture, state::Open::Inotify,
                                  inotify::rebuild};

}  // namespace icecore
