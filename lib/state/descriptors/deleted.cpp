// SPDX-License-Identifier: Apache-2.0
#include "state/descriptors/deleted.hpp"

#include <fmt/format.h>

#include <string_view>

#include "icecore/error.hpp"
#include "state/file_table.hpp"
#include "sys/process.hpp"

namespace icecore {

std::optional<std::string> path_of_deleted(const std::string& link) {
  constexpr std::string_view kMark = " (deleted)";
  if (!link.ends_with(kMark)) return std::nullopt;
  return link.substr(0, link.size() - kMark.size());
}

void refuse_unreachable(const std::string& path, const sys::Fd& itself) {
  if (!sys::on_file_system_of(itself, existing_folder("", path)))
    throw Error{Errc::unsupported,
                fmt::format("{}: has been deleted, and its file system cannot be reached", path)};
}

NewName::NewName(const std::string& root, const std::string& path) : path_{root + path} {
  const std::string folder = existing_folder(root, path);
  const bool has_folder = path_.find('/', folder.size()) == std::string::npos;
  for (unsigned i = 0; !has_folder || sys::try_link_status(path_); ++i) {
    path_ = fmt::format("{}.icecore-{}-{}", folder, sys::current_process(), i);
    if (!sys::try_link_status(path_)) break;
  }
}

}  // namespace icecore
