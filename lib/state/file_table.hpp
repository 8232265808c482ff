// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "image/state_generated.h"
#include "sys/files.hpp"

namespace icecore {

/// The files that a process has mapped or open, by identity: each once.
///
/// Capture notes what the kernel knows while the process stands still; complete() reads what lies
/// in the files themselves (build ids), afterwards.
class FileTable {
 public:
  /// Notes a file; `status` is that of the open or mapped file itself, `path` the name the kernel
  /// gives for it.  Throws Errc::unsupported when that name leads elsewhere now (deleted, replaced,
  /// or out of reach).
  std::int32_t add(const std::string& path, const sys::FileStatus& status, bool contents_matter);

  /// Reads the build ids.  A file that has changed since it was noted is refused: the image could
  /// never be restored.
  void complete();

  std::vector<std::unique_ptr<state::FileT>> take() { return std::move(files_); }

 private:
  std::vector<std::unique_ptr<state::FileT>> files_;
  std::map<std::tuple<std::uint64_t, std::uint64_t, std::string>, std::int32_t> index_;
};

/// True for the name that the kernel gives to a file that has been unlinked.
bool is_deleted(std::string_view path);

/// What differs between a file as noted and the file of that name now: "size 12 instead of 10".
/// Empty when nothing does.
///
/// For an ELF file with a build id, size and build id decide (another machine has other inodes and
/// may have other times); for any other file size and modification time do.
std::string difference(const state::FileT& noted);

/// The build id of an ELF file; empty for any other file and for one without.
std::vector<std::uint8_t> read_build_id(const sys::Fd& file);

}  // namespace icecore
