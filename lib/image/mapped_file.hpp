// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "sys/fd.hpp"

namespace icecore {

/// A regular file, mapped whole and read-only.
///
/// The size is that at the time of opening.  Whoever makes the file shorter afterwards makes reads
/// beyond its new end fail with SIGBUS; renaming or deleting it does no harm.
///
/// Touching a page reads that page and no other from the disk: what else the kernel would read
/// along is up to a setting of the machine (read_ahead_kb: 128 KiB by default, 8 MiB in some
/// clouds, which is 10 ms for each page that is touched).  Whoever needs
/// more says so by sys::read_ahead() or expect_all().
class MappedFile {
 public:
  /// Throws Errc::io or Errc::permission ("open /x/y: No such file or directory").
  static MappedFile open(const std::filesystem::path& path);

  /// Of a file that is open; `name` is for messages.
  static MappedFile of(sys::Fd fd, const std::string& name);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  /// All of it will be read: the kernel may read ahead as it likes.
  void expect_all() const noexcept;

  /// Page-aligned; empty for an empty file.
  std::span<const std::byte> bytes() const noexcept { return {address_, size_}; }

  /// Open for reading, as long as this lives.
  const sys::Fd& fd() const noexcept { return fd_; }

 private:
  MappedFile(sys::Fd fd, const std::byte* address, std::size_t size_bytes)
      : fd_(std::move(fd)), address_(address), size_(size_bytes) {}

  sys::Fd fd_;
  const std::byte* address_;
  std::size_t size_;
};

}  // namespace icecore
