// SPDX-License-Identifier: Apache-2.0
#include "sys/cgroup.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

struct Version {
  const char* root;
  const char* limit;
  const char* used;
  const char* cache[2];  ///< in memory.stat
};
constexpr Version kVersion2{
    "/sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file ", "active_file "}};
constexpr Version kVersion1{"/sys/fs/cgroup/memory",
                            "memory.limit_in_bytes",
                            "memory.usage_in_bytes",
                            {"total_inactive_file ", "total_active_file "}};

/// Version 1 has such a number where version 2 has "max".
constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 62;

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return {};
  return value;
}

std::uint64_t field(const std::string& stat, const char* name) {
  const std::string line = std::string{"\n"} + name;
  const std::size_t at = ("\n" + stat).find(line);
  if (at == std::string::npos) return 0;
  return number(std::string_view{stat}.substr(at + line.size() - 1)).value_or(0);
}

std::optional<MemoryRoom> room_of(const Version& version, const std::string& group) {
  const std::string folder = version.root + group + "/";
  const auto limit = number(readable_text(folder + version.limit));
  const auto used = number(readable_text(folder + version.used));
  if (!limit || !used || *limit >= kUnlimited) return {};
  const std::string stat = readable_text(folder + "memory.stat");
  const std::uint64_t cache = field(stat, version.cache[0]) + field(stat, version.cache[1]);
  const std::uint64_t taken = *used - std::min(cache, *used);
  return MemoryRoom{*limit - std::min(taken, *limit), folder + version.limit};
}

/// Calls of(controllers, path) for each group of a process that can be seen.
template <class Of>
void for_each_group(pid_t pid, Of of) {
  const std::string groups = readable_text(fmt::format("/proc/{}/cgroup", pid));
  for (std::size_t at = 0; at < groups.size();) {
    const std::size_t end = std::min(groups.find('\n', at), groups.size());
    const std::string_view line = std::string_view{groups}.substr(at, end - at);
    at = end + 1;
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view path = line.substr(second + 1);
    if (!path.starts_with("/..")) of(line.substr(first + 1, second - first - 1), std::string{path});
  }
}

}  // namespace

std::optional<MemoryRoom> memory_room(pid_t pid) {
  std::optional<MemoryRoom> least;
  for_each_group(pid, [&](std::string_view controllers, std::string group) {
    if (!controllers.empty() && controllers != "memory") return;
    for (;; group.resize(group.rfind('/'))) {
      if (group == "/") group.clear();
      const auto room = room_of(controllers.empty() ? kVersion2 : kVersion1, group);
      if (room && (!least || room->bytes < least->bytes)) least = room;
      if (group.empty()) break;
    }
  });
  return least;
}

bool is_frozen(pid_t pid) {
  bool frozen = false;
  const auto look = [&](const std::string& file, std::string_view sign) {
    frozen = frozen || readable_text(file).find(sign) != std::string::npos;
  };
  for_each_group(pid, [&](std::string_view controllers, const std::string& group) {
    if (controllers == "freezer") {
      look("/sys/fs/cgroup/freezer" + group + "/freezer.state", "FR");  // EEZING, OZEN
    } else if (controllers.empty()) {
      look("/sys/fs/cgroup" + group + "/cgroup.events", "frozen 1");
      look("/sys/fs/cgroup/unified" + group + "/cgroup.events", "frozen 1");
    }
  });
  return frozen;
}

}  // namespace icecore::sys
