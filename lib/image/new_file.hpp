// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "sys/fd.hpp"

namespace icecore {

/// A file that appears under its name whole or not at all, with mode 0600.
///
/// Until commit() it has no name where the filesystem allows that (O_TMPFILE), so that nothing is
/// left behind even when we are killed; elsewhere a temporary one beside `path`.  Destroying an
/// uncommitted file removes it.  Everything throws Errc::io or Errc::permission with `path` in it.
class NewFile {
 public:
  /// Fails at once when `path` is a directory or anything else but a regular file or nothing.
  explicit NewFile(std::filesystem::path path);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  /// Pieces that end at multiples of 2 MiB lie in the page cache in folios of that size.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);

  /// Lets the disk begin with what was written so far.  Does not wait for it.
  void start_writeback() const noexcept;

  /// Waits for the disk if wanted, then puts the file in the place of what had its name.
  void commit(bool fsync);

 private:
  void create();
  bool commit_at_once();
  bool try_link();
  void link_over_existing();
  void sync_folder() const;
  std::filesystem::path temporary_name() const;
  [[noreturn]] void fail(int err) const;

  std::filesystem::path path_;
  std::filesystem::path folder_;
  std::filesystem::path temporary_;  // empty: the file has no name to remove
  sys::Fd fd_;
};

}  // namespace icecore
