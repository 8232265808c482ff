// SPDX-License-Identifier: Apache-2.0
#include "state/kept_files.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>

#include "icecore/error.hpp"
#include "state/file_table.hpp"
#include "sys/check.hpp"

namespace icecore {
namespace {

constexpr mode_t kPermissions = 07777;
constexpr mode_t kMayExecute = 0111;
constexpr int kLargeFile = 0100000;  // O_LARGEFILE, as the kernel shows it

sys::Fd make_empty(const state::FileT& file, const std::string& root) {
  if (file.kept->kind == state::KeptKind::unlinked)
    return sys::make_unnamed_file(existing_folder(root, file.path), file.kept->linkable);
  const bool executable =
      (file.mode & kMayExecute) != 0 || (file.kept->seals & sys::kSealExec) == 0;
  return sys::make_memfd(file.path.substr(kMemfdPath.size()), executable);
}

void fill(const sys::Fd& file, std::uint64_t address, std::uint64_t size, const PageStore& store,
          const std::stop_token& stop) {
  sys::resize_file(file, size);
  PageStore::Scratch scratch;
  std::uint64_t page = 0;
  for (const PageRun& run : store.runs()) {
    if (run.address >= address && run.address - address < size)
      for (std::uint64_t done = 0; done < run.pages;) {
        if (stop.stop_requested()) throw Error{Errc::cancelled, "restore: cancelled"};
        const std::uint64_t count = std::min(PageStore::kMaxPages, run.pages - done);
        const std::uint64_t offset = run.address - address + done * kPageSize;
        auto bytes = store.read(page + done, count, scratch);
        sys::write_all(file, bytes.first(std::min(bytes.size(), size - offset)), offset);
        done += count;
      }
    page += run.pages;
  }
}

void set_attributes(const sys::Fd& file, const state::FileT& noted) {
  const auto made = sys::status(file);
  if (made.st_uid != noted.kept->owner || made.st_gid != noted.kept->group)
    sys::set_owner(file, {noted.kept->owner, noted.kept->group});
  if ((made.st_mode & kPermissions) != (noted.mode & kPermissions))
    sys::set_mode(file, noted.mode & kPermissions);
  sys::set_modification_time(file, {noted.mtime_s, noted.mtime_ns});
}

std::string path_of(const sys::Fd& file) { return fmt::format("/proc/self/fd/{}", file.get()); }

void add_missing_seals(const sys::Fd& file, unsigned wanted) {
  if (const unsigned missing = wanted & ~sys::seals(file); missing != 0)
    sys::add_seals(file, missing);
}

/// Nobody can map it for writing any more, or make it another executable.
bool is_executable_of_process(const state::ProcessT& image, std::size_t file) {
  return static_cast<std::size_t>(image.address_space->executable) == file;
}

}  // namespace

KeptFiles::KeptFiles(const state::ProcessT& image, const PageStore& store, const std::string& root,
                     const std::stop_token& stop)
    : image_(image), root_(root), files_(image.files.size()), given_away_(files_.size()) {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const state::FileT& file = *image.files[i];
    if (!file.kept) continue;
    try {
      files_[i] = make(file, store, stop);
      if (!is_executable_of_process(image, i)) continue;
      // The kernel takes as executable only what nobody has open for writing.
      if (file.kept->kind == state::KeptKind::memory)
        add_missing_seals(files_[i], file.kept->seals);
      files_[i] = sys::open_file(path_of(files_[i]), O_RDONLY);
    } catch (const Error& error) {
      throw Error{error.code(), fmt::format("{} (deleted): {}", file.path, error.what()),
                  error.sys_errno()};
    }
  }
}

sys::Fd KeptFiles::make(const state::FileT& file, const PageStore& store,
                        const std::stop_token& stop) const {
  sys::Fd made = make_empty(file, root_);
  fill(made, file.kept->first_page, file.size, store, stop);
  set_attributes(made, file);
  return made;
}

sys::Fd KeptFiles::open(std::int32_t index, int flags) {
  const auto i = static_cast<std::size_t>(index);
  if (!files_[i]) return sys::open_file(root_ + image_.files[i]->path, flags);
  // The description that memfd_create(2) made is not counted as a writer: what it leads to can be
  // executed.  Which of several that was, nothing tells.
  constexpr int kOfMemfd = O_RDWR | kLargeFile;
  if (image_.files[i]->kept->kind == state::KeptKind::memory && !given_away_[i] &&
      (flags & (O_ACCMODE | kLargeFile)) == kOfMemfd && !is_executable_of_process(image_, i)) {
    given_away_[i] = true;
    sys::set_status_flags(files_[i], flags);
    return sys::duplicate(files_[i].get());
  }
  if ((flags & O_TMPFILE) != O_TMPFILE) return sys::open_file(path_of(files_[i]), flags);
  // Only the description that made such a file has this flag.
  if (given_away_[i] || (flags & O_ACCMODE) != O_RDWR || !image_.files[i]->kept->linkable)
    return sys::open_file(path_of(files_[i]), flags & ~O_TMPFILE);
  given_away_[i] = true;
  sys::set_status_flags(files_[i], flags);
  return sys::duplicate(files_[i].get());
}

void KeptFiles::seal() const {
  for (std::size_t i = 0; i < files_.size(); ++i)
    if (files_[i] && image_.files[i]->kept->kind == state::KeptKind::memory &&
        !is_executable_of_process(image_, i))
      add_missing_seals(files_[i], image_.files[i]->kept->seals);
}

}  // namespace icecore
