// SPDX-License-Identifier: Apache-2.0
#include "passed_on.hpp"

#include <fcntl.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace icecore::tool {
namespace {

namespace fs = std::filesystem;

/// No file that could be opened by its name: it can only have been passed on.
bool is_nameless(const std::string& what) {
  return what.starts_with("pipe:[") || what.starts_with("socket:[");
}

bool belongs_to_invocation(const ImageInfo::Descriptor& descriptor) {
  return descriptor.number > 2 && descriptor.kind == "external" && is_nameless(descriptor.detail);
}

}  // namespace

PassedOn::PassedOn() {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator{"/proc/self/fd", failed}) {
    const int number = std::atoi(entry.path().filename().c_str());
    const int flags = ::fcntl(number, F_GETFD);
    if (number <= 2 || flags < 0 || (flags & FD_CLOEXEC) != 0) continue;
    std::string what = fs::read_symlink(entry.path(), failed).string();
    if (!failed && is_nameless(what)) ours_.emplace(number, std::move(what));
  }
}

void PassedOn::give(const Image& image, RestoreOptions& options) const {
  for (const auto& descriptor : image.descriptors())
    if (belongs_to_invocation(descriptor))
      options.external.try_emplace(descriptor.number, ours_.contains(descriptor.number)
                                                          ? External{descriptor.number}
                                                          : External{External::Close{}});
}

void PassedOn::give_own(const Image& image, RestoreOptions& options) const {
  for (const auto& descriptor : image.descriptors()) {
    const auto own = ours_.find(descriptor.number);
    if (belongs_to_invocation(descriptor) && own != ours_.end() && own->second == descriptor.detail)
      options.external.try_emplace(descriptor.number, External{descriptor.number});
  }
}

}  // namespace icecore::tool
