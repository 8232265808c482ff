// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/snapshot.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "image/page_map.hpp"
#include "image/page_run.hpp"

namespace icecore {

class ImageWriter;

/// Takes pages in ascending order of address, drops those that are zero, digests and encodes the
/// rest on threads of its own, and appends them to an image, in order.
///
/// Used by one thread.  A failure on a worker is thrown by the next call.  Destroying an unfinished
/// encoder stops its workers; the image is then of no use.
class PageEncoder {
 public:
  static constexpr std::size_t kBatchBytes = std::size_t{1} << 20;

  PageEncoder(ImageWriter& image, Encoding encoding, int zstd_level);
  ~PageEncoder();

  /// About how much there is to come.  Little is held in memory, so that whoever hands it over need
  /// not wait until it is in the image.
  void expect(std::uint64_t bytes) noexcept;

  /// From now on nobody waits for the image: threads give way to others, and batches are small.
  void give_way() noexcept;

  /// Memory for the next batch: kBatchBytes, page-aligned.  Waits while all batches are being
  /// encoded.  Valid until submit().
  std::span<std::byte> buffer();

  /// How much of buffer() to fill at best.  More is taken as well, and copied once more.
  std::size_t room_bytes() const noexcept;

  /// Hands over what buffer() now holds: the pages of `runs`, back to back.  Runs are ascending,
  /// do not overlap, and follow those of earlier batches.
  void submit(std::span<const PageRun> runs);

  /// Waits until every page is in the image, and says where.  Last call.
  PageMap finish();

  std::uint64_t zero_pages() const noexcept;

 private:
  struct Pipeline;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace icecore
