// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "image/digest.hpp"
#include "image/page_map.hpp"

namespace icecore {

namespace state {
struct ManifestT;
}

/// Reads an image held in memory (normally an mmap).  Knows nothing of processes, so a fuzzer can
/// drive it with bytes alone.
///
/// The image is hostile: the constructor verifies the header, every digest but those of the pages,
/// the structure of the manifest and that its values make sense together (mappings ascending, page
/// aligned and below 2^47, every index in range, every stored page inside a mapping …), so that
/// nothing after it needs to check again.  Throws Errc::corrupt_image, or Errc::incompatible for a
/// newer major version.
class ImageReader {
 public:
  /// `image` must outlive the reader.
  explicit ImageReader(std::span<const std::byte> image);
  ~ImageReader();
  ImageReader(ImageReader&&) noexcept;

  std::uint16_t major_version() const noexcept;
  std::uint16_t minor_version() const noexcept;
  /// No other image has it, but an exact copy.
  const Digest128& identity() const noexcept { return identity_; }
  const state::ManifestT& manifest() const noexcept { return *manifest_; }
  const PageMap& page_map() const noexcept { return page_map_; }
  std::span<const std::byte> bytes() const noexcept { return image_; }

 private:
  std::span<const std::byte> image_;
  std::uint16_t minor_version_ = 0;
  Digest128 identity_;
  std::unique_ptr<const state::ManifestT> manifest_;
  PageMap page_map_;
};

}  // namespace icecore
