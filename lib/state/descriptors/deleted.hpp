// SPDX-License-Identifier: Apache-2.0
#pragma once

// What has no name any more and is not a regular file: made anew under another, which is then
// removed.

#include <optional>
#include <string>

#include "sys/files.hpp"

namespace icecore {

/// Of what /proc shows as deleted; nothing: it does not.
std::optional<std::string> path_of_deleted(const std::string& link);

/// Throws unless another one could be made where it lay.
void refuse_unreachable(const std::string& path, const sys::Fd& itself);

/// A name that nothing has, on the file system where `path` was: that itself if it is free.
class NewName {
 public:
  /// `root` stands before every path.
  NewName(const std::string& root, const std::string& path);
  const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace icecore
