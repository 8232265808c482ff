// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace icecore {

/// A regular file, mapped whole and read-only.
///
/// The size is that at the time of opening.  Whoever makes the file shorter afterwards makes reads
/// beyond its new end fail with SIGBUS; renaming or deleting it does no harm.
class MappedFile {
 public:
  /// Throws Errc::io or Errc::permission ("open /x/y: No such file or directory").
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  /// Page-aligned; empty for an empty file.
  std::span<const std::byte> bytes() const noexcept { return {address_, size_}; }

 private:
  MappedFile(const std::byte* address, std::size_t size_bytes)
      : address_(address), size_(size_bytes) {}

  const std::byte* address_;
  std::size_t size_;
};

}  // namespace icecore
