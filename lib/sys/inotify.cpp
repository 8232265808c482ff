// SPDX-License-Identifier: Apache-2.0
#include "sys/inotify.hpp"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <string_view>

#include "sys/call.hpp"
#include "sys/files.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

constexpr std::size_t kMaxHandle = 128;  // MAX_HANDLE_SZ

std::vector<std::uint8_t> bytes_of(std::string_view hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t at = 0; at + 1 < hex.size(); at += 2)
    bytes.push_back(static_cast<std::uint8_t>(
        std::strtoul(std::string{hex.substr(at, 2)}.c_str(), nullptr, 16)));
  return bytes;
}

/// "inotify wd:1 ino:9e sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1
/// f_handle:9e00…"
InotifyWatch parse_watch(const std::string& line) {
  InotifyWatch watch;
  unsigned long inode = 0;
  unsigned device = 0;
  unsigned type = 0;
  int at = 0;
  if (std::sscanf(line.c_str(),
                  "inotify wd:%x ino:%lx sdev:%x mask:%x ignored_mask:%*x fhandle-bytes:%*x "
                  "fhandle-type:%x f_handle:%n",
                  reinterpret_cast<unsigned*>(&watch.descriptor), &inode, &device, &watch.mask,
                  &type, &at) != 5 ||
      at == 0)
    throw Error{Errc::unsupported,
                "inotify: this kernel does not tell what it watches (CONFIG_EXPORTFS)"};
  watch.inode = inode;
  watch.device = ::makedev(device >> 20, device & 0xfffff);
  watch.handle_type = static_cast<int>(type);
  watch.handle = bytes_of(std::string_view{line}.substr(static_cast<std::size_t>(at)));
  return watch;
}

/// By its handle, on a file system that is mounted there.
std::optional<std::string> find_by_handle(const InotifyWatch& watch, const std::string& mount) {
  const auto root = try_open_file(mount, O_RDONLY | O_NONBLOCK);
  if (!root || watch.handle.size() > kMaxHandle) return std::nullopt;
  alignas(::file_handle) std::array<std::uint8_t, sizeof(::file_handle) + kMaxHandle> bytes{};
  auto* const handle = reinterpret_cast<::file_handle*>(bytes.data());
  handle->handle_bytes = static_cast<unsigned>(watch.handle.size());
  handle->handle_type = watch.handle_type;
  std::memcpy(handle->f_handle, watch.handle.data(), watch.handle.size());
  const int number = ::open_by_handle_at(root->get(), handle, O_PATH | O_CLOEXEC | O_NOFOLLOW);
  if (number < 0) return std::nullopt;
  const Fd found{number};
  auto path = try_read_link(fmt::format("/proc/self/fd/{}", number));
  if (path && leads_to_watched(*path, watch)) return path;
  return std::nullopt;
}

}  // namespace

std::vector<InotifyWatch> inotify_watches(pid_t pid, int number) {
  std::vector<InotifyWatch> watches;
  std::istringstream lines{read_file(fmt::format("/proc/{}/fdinfo/{}", pid, number))};
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("inotify ")) watches.push_back(parse_watch(line));
  std::ranges::sort(watches, {}, &InotifyWatch::descriptor);
  return watches;
}

bool leads_to_watched(const std::string& path, const InotifyWatch& watch) {
  const auto status = try_link_status(path);
  return status && status->st_ino == watch.inode && status->st_dev == watch.device;
}

std::optional<std::string> find_watched(const InotifyWatch& watch) {
  const std::string device = fmt::format("{}:{}", ::major(watch.device), ::minor(watch.device));
  std::istringstream mounts{read_file("/proc/self/mountinfo")};
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words{line};
    std::string id, parent, of, root, where;
    words >> id >> parent >> of >> root >> where;
    if (of != device) continue;
    if (auto path = find_by_handle(watch, where)) return path;
  }
  return std::nullopt;
}

Fd make_inotify() {
  return Fd{checked([] { return ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK); },
                    "make an inotify instance")};
}

void add_watch(const Fd& inotify, const std::string& path, std::uint32_t mask, int number,
               int& next) {
  const auto add = [&](const char* at, std::uint32_t events) {
    return checked([&] { return ::inotify_add_watch(inotify.get(), at, events); },
                   "watch {} (see fs.inotify.max_user_watches)", at);
  };
  for (; next < number; ++next) {
    // Nothing ever happens to it.
    const int between = add("/proc/self/ns", IN_DELETE_SELF);
    checked([&] { return ::inotify_rm_watch(inotify.get(), between); }, "remove a watch");
    std::array<char, 4096> gone{};
    checked([&] { return ::read(inotify.get(), gone.data(), gone.size()); },
            "read an inotify event");
  }
  if (const int got = add(path.c_str(), mask | IN_DONT_FOLLOW); got != number)
    throw Error{Errc::incompatible,
                fmt::format("watch {}: it is watch {} instead of {}: two paths lead to one file",
                            path, got, number)};
  ++next;
}

}  // namespace icecore::sys
