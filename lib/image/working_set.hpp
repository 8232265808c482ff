// SPDX-License-Identifier: Apache-2.0
#pragma once

// The side file IMAGE.ws: the pages that a restored process touched first, packed, so that the next
// restore has them in one contiguous read; and which pages of mapped files it used.
// docs/image-format.md specifies it.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "image/digest.hpp"
#include "image/image_reader.hpp"
#include "image/mapped_file.hpp"

namespace icecore {

/// Neighbouring pages of a file of the image.
struct FilePages {
  std::uint32_t file;  ///< its number in the image
  std::uint32_t pages;
  std::uint64_t first_page;

  friend auto operator<=>(const FilePages&, const FilePages&) = default;
};

class WorkingSet {
 public:
  static std::filesystem::path path_for(const std::filesystem::path& image);

  /// Nothing when there is none.  Throws Errc::corrupt_image when it is damaged, and
  /// Errc::incompatible when it belongs to another image or is of another version.
  static std::optional<WorkingSet> open(const std::filesystem::path& path,
                                        const ImageReader& image);

  /// Numbers of stored pages, ascending.
  std::span<const std::uint64_t> pages() const noexcept { return pages_; }

  /// For each of pages(): the how-manieth it was to be touched.
  std::span<const std::uint32_t> order() const noexcept { return order_; }

  /// Ascending, disjoint, and within what the image says of the size of the file.
  std::span<const FilePages> file_pages() const noexcept { return file_pages_; }

  /// The contents of pages()[first] to pages()[first + count - 1], verified.
  /// Throws Errc::corrupt_image.
  std::span<const std::byte> read(std::size_t first, std::size_t count) const;

 private:
  explicit WorkingSet(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  std::vector<std::uint64_t> pages_;
  std::vector<std::uint64_t> digests_;
  std::vector<std::uint32_t> order_;
  std::vector<FilePages> file_pages_;
  std::uint64_t data_offset_ = 0;
};

/// Writes the side file whole or not at all.  `touched`: numbers of stored pages in the order of
/// their first touch, without duplicates.  `file_pages`: in any order; what overlaps is joined.
/// `contents` gives the bytes of one stored page.
void write_working_set(
    const std::filesystem::path& path, const ImageReader& image,
    std::span<const std::uint64_t> touched, std::vector<FilePages> file_pages,
    const std::function<std::span<const std::byte>(std::uint64_t page)>& contents);

}  // namespace icecore
