// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/snapshot.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "image/new_file.hpp"
#include "image/page_map.hpp"

namespace icecore {

namespace state {
struct ManifestT;
}

/// Writes an image to a file that has no name yet; commit() gives it the name `path`.
///
/// Order: append() the encoded pages, finish() once, commit().  Destroying an uncommitted writer
/// removes the file.  Throws Errc::io ("write /x/y: No space left on device").
class ImageWriter {
 public:
  explicit ImageWriter(std::filesystem::path path);
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;
  ~ImageWriter();

  /// Appends to the page data.  Large calls: the file reaches the page cache in large pieces.
  void append(std::span<const std::byte> bytes);

  /// File offset of the next append(); the first is a multiple of 4096.
  std::uint64_t position() const noexcept { return position_; }

  /// Writes everything that is not pages: notes, page map, digests, manifest, ELF and image header.
  void finish(const state::ManifestT& manifest, const PageMap& map);

  /// As those of NewFile.
  void start_writeback() const noexcept;
  void commit(bool fsync);

  std::uint64_t size_bytes() const noexcept { return size_bytes_; }

 private:
  NewFile file_;
  std::uint64_t position_;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace icecore
