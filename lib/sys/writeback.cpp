// SPDX-License-Identifier: Apache-2.0
#include "sys/writeback.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "sys/call.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

bool has_line(std::string_view text, std::string_view wanted) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (text.substr(0, end) == wanted) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

}  // namespace

void start_writeback(const Fd& file) noexcept {
  ::sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
}

bool try_write_back(const Fd& file) noexcept {
  constexpr unsigned kAll =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  int result = 0;
  do {
    result = ::sync_file_range(file.get(), 0, 0, kAll);
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

bool links_after_contents(const Fd& file) {
  struct statfs filesystem {};
  if (::fstatfs(file.get(), &filesystem) != 0 || filesystem.f_type != EXT4_SUPER_MAGIC)
    return false;
  struct ::stat status {};
  if (::fstat(file.get(), &status) != 0) return false;
  const auto link = try_read_link(
      fmt::format("/sys/dev/block/{}:{}", ::major(status.st_dev), ::minor(status.st_dev)));
  if (!link) return false;
  const std::string options = readable_text(
      "/proc/fs/ext4" + link->substr(std::min(link->rfind('/'), link->size())) + "/options");
  return has_line(options, "data=ordered") && has_line(options, "barrier");
}

}  // namespace icecore::sys
