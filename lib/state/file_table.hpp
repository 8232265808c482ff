// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "image/page_run.hpp"
#include "image/state_generated.h"
#include "sys/files.hpp"

namespace icecore {

/// With this begins the path of a memfd.
inline constexpr std::string_view kMemfdPath = "/memfd:";

/// The files that a process has mapped or open, by identity: each once.
///
/// Capture notes what the kernel knows while the process stands still; complete() reads what lies
/// in the files themselves (build ids), afterwards.
class FileTable {
 public:
  /// Notes a file; `status` is that of the open or mapped file itself, `path` the name the kernel
  /// gives for it, and `itself` a path below /proc that leads to it whatever became of that name.
  /// The contents of a file without a name (deleted, or a memfd) have to be kept.  Throws
  /// Errc::unsupported when the name leads elsewhere now (replaced, or out of reach).
  std::int32_t add(const std::string& path, const sys::FileStatus& status, bool contents_matter,
                   const std::string& itself);

  /// A description of it has O_TMPFILE: it may be given a name, which nothing else tells.
  void mark_linkable(std::int32_t index);

  /// The process has a lease for writing on it, which whoever opens the file would break.
  void mark_leased(std::int32_t index);
  bool is_leased(std::int32_t index) const { return leased_.contains(index); }

  /// Reads the build ids.  A file that has changed since it was noted is refused: the image could
  /// never be restored.
  void complete();

  /// A file whose contents go into the image, as if it were mapped at `address`.
  struct Kept {
    sys::Fd file;
    std::uint64_t address;
    std::uint64_t size;

    std::uint64_t end_address() const {
      return address + (size + kPageSize - 1) / kPageSize * kPageSize;
    }
  };
  const std::vector<Kept>& kept() const noexcept { return kept_; }

  std::vector<std::unique_ptr<state::FileT>> take() { return std::move(files_); }

 private:
  void find_or_keep(state::FileT& file, const sys::FileStatus& status, const std::string& itself);

  std::vector<std::unique_ptr<state::FileT>> files_;
  std::map<std::tuple<std::uint64_t, std::uint64_t, std::string>, std::int32_t> index_;
  std::vector<Kept> kept_;
  std::set<std::int32_t> leased_;
};

/// The folder in which a file that was `path` can be made again, with a slash at its end: the
/// nearest one above it that exists.  `root` stands before every path.
std::string existing_folder(const std::string& root, const std::string& path);

/// What differs between a file as noted and the file of that name now: "size 12 instead of 10".
/// Empty when nothing does.
///
/// For an ELF file with a build id, size and build id decide (another machine has other inodes and
/// may have other times); for any other file size and modification time do.
std::string difference(const state::FileT& noted);

/// The build id of an ELF file; empty for any other file and for one without.
std::vector<std::uint8_t> read_build_id(const sys::Fd& file);

}  // namespace icecore
