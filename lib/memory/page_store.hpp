// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "image/image_reader.hpp"
#include "image/page_run.hpp"
#include "memory/frame_codec.hpp"
#include "memory/read_ahead.hpp"
#include "sys/fd.hpp"

namespace icecore {

/// The stored pages of an image, each checked against its digest before it is given out.
///
/// Pages are numbered in the order in which they are stored, which is that of their addresses.
/// May be used from several threads at once; each brings its own Scratch.
class PageStore {
 public:
  /// Where decoded pages lie until the next read() with the same Scratch.  Belongs to one store.
  class Scratch {
    friend class PageStore;
    FrameDecoder decoder_;
    std::vector<std::byte> decoded_;  // whole frames, so that neighbouring reads find theirs there
    std::uint64_t first_page_ = 0;    // of `decoded_`
    std::vector<std::byte> copied_;   // one page
  };

  /// The most pages of one read().
  static constexpr std::uint64_t kMaxPages = 64;

  /// `image` must outlive the store.
  explicit PageStore(const ImageReader& image) : image_(image) {}

  /// `file`: the image, for who wants single pages.  To copy one out of the page cache takes less
  /// than to have it mapped first: 5 µs of a fault.
  PageStore(const ImageReader& image, const sys::Fd& file) : image_(image), file_(&file) {}

  Encoding encoding() const noexcept { return image_.page_map().encoding; }

  /// Runs of stored pages, ascending.
  std::span<const PageRun> runs() const noexcept { return image_.page_map().runs; }

  /// Where in the image these stored pages lie; of encoded ones, their whole frames.
  FileRange place_of(std::uint64_t first, std::uint64_t count) const noexcept;

  /// Has the disk read so many from there on, without waiting.
  void read_ahead(std::uint64_t first, std::uint64_t count) const noexcept;

  /// For who wants one page and not yet its neighbours: has the disk read them with it where it
  /// would have to read it.
  void read_around(std::uint64_t page) const noexcept;

  /// The bytes of stored pages [first, first + count), count <= kMaxPages, verified.  Straight in
  /// the mapped image for raw pages, else in `scratch`.  Throws Errc::corrupt_image.
  std::span<const std::byte> read(std::uint64_t first, std::uint64_t count, Scratch& scratch) const;

  /// One page, for who waits for it and not yet for its neighbours: reads what it takes from the
  /// disk with its neighbours.
  std::span<const std::byte> read_awaited(std::uint64_t page, Scratch& scratch) const;

 private:
  std::span<const std::byte> read_raw(std::uint64_t first, std::uint64_t count) const;
  void verify(std::uint64_t page, std::span<const std::byte> bytes) const;
  std::span<const std::byte> read_frames(std::uint64_t first, std::uint64_t count,
                                         Scratch& scratch) const;
  void decode(std::uint64_t first_frame, std::uint64_t last_frame, Scratch& scratch) const;

  const ImageReader& image_;
  const sys::Fd* file_ = nullptr;
  mutable std::atomic<std::uint64_t> cold_reads_ = 0;
};

}  // namespace icecore
