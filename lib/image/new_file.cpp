// SPDX-License-Identifier: Apache-2.0
#include "image/new_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "sys/call.hpp"
#include "sys/writeback.hpp"

namespace icecore {
namespace {

constexpr mode_t kMode = 0600;

/// Creates a file with a name of its own from `pattern`, whose last six characters it replaces.
sys::Fd create_temporary(std::string& pattern) {
  return sys::Fd{::mkostemp(pattern.data(), O_CLOEXEC)};
}

}  // namespace

NewFile::NewFile(std::filesystem::path path) : path_(std::move(path)) {
  if (!path_.has_filename())
    throw Error{Errc::invalid_argument, fmt::format("write \"{}\": no file name", path_.string())};
  folder_ = path_.has_parent_path() ? path_.parent_path() : ".";

  struct stat existing;
  if (::stat(path_.c_str(), &existing) == 0) {
    if (S_ISDIR(existing.st_mode)) fail(EISDIR);
    if (!S_ISREG(existing.st_mode))
      throw Error{Errc::io, fmt::format("write {}: not a regular file", path_.string())};
  }
  create();
}

NewFile::~NewFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void NewFile::create() {
  fd_ = sys::Fd{::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode)};
  if (!fd_) {
    // Whatever the reason was: if it is not that O_TMPFILE is unknown here, it shows again.
    std::string name = temporary_name();
    fd_ = create_temporary(name);
    if (!fd_) fail(errno);
    temporary_ = name;
  }
  if (::fchmod(fd_.get(), kMode) != 0) fail(errno);  // the umask may have taken bits away
}

std::filesystem::path NewFile::temporary_name() const {
  return folder_ / fmt::format(".{}.icecore-XXXXXX", path_.filename().string());
}

void NewFile::fail(int err) const { sys::throw_errno(err, "write " + path_.string()); }

void NewFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = sys::checked(
        [&] { return ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); },
        "write {}", path_.string());
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
}

void NewFile::start_writeback() const noexcept { sys::start_writeback(fd_); }

void NewFile::commit(bool fsync) {
  if (fsync && temporary_.empty() && sys::links_after_contents(fd_) && commit_at_once()) return;
  if (fsync) sys::checked([&] { return ::fsync(fd_.get()); }, "write {} to disk", path_.string());
  if (!temporary_.empty()) {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
    temporary_.clear();
  } else if (!try_link()) {
    link_over_existing();
  }
  if (fsync) sync_folder();
}

// One commit of the journal instead of two, one for the contents and one for the name.
// False: there is a file of that name, which has to stay until this one is safe.
bool NewFile::commit_at_once() {
  if (!sys::try_write_back(fd_)) fail(errno);
  if (!try_link()) return false;
  if (::fsync(fd_.get()) == 0) return true;
  const int err = errno;
  ::unlink(path_.c_str());
  fail(err);
}

bool NewFile::try_link() {
  // Through /proc, because AT_EMPTY_PATH needed a capability before Linux 6.10.
  const std::string self = fmt::format("/proc/self/fd/{}", fd_.get());
  if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) == 0)
    return true;
  if (errno != EEXIST) fail(errno);
  return false;
}

// linkat(2) never replaces, so the file takes a temporary name and is renamed.
void NewFile::link_over_existing() {
  const std::string self = fmt::format("/proc/self/fd/{}", fd_.get());
  std::string name = temporary_name();
  if (!create_temporary(name)) fail(errno);  // only for its name
  temporary_ = name;
  if (::unlink(name.c_str()) != 0) fail(errno);
  if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) fail(errno);
  if (::rename(name.c_str(), path_.c_str()) != 0) fail(errno);
  temporary_.clear();
}

void NewFile::sync_folder() const {
  const sys::Fd folder{::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!folder) fail(errno);
  // Some filesystems cannot sync a folder and say EINVAL; then there is nothing to wait for.
  if (::fsync(folder.get()) != 0 && errno != EINVAL) fail(errno);
}

}  // namespace icecore
