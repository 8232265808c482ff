// SPDX-License-Identifier: Apache-2.0
#include "memory/page_store.hpp"

#include <algorithm>

#include "icecore/error.hpp"
#include "image/corrupt.hpp"
#include "image/digest.hpp"
#include "image/format.hpp"
#include "sys/files.hpp"
#include "sys/mapping.hpp"

namespace icecore {
namespace {

/// Where in the process stored page `page` belongs.  For messages: it looks through all runs.
std::uint64_t address_of(const PageMap& map, std::uint64_t page) {
  for (const PageRun& run : map.runs) {
    if (page < run.pages) return run.address + page * kPageSize;
    page -= run.pages;
  }
  return 0;
}

constexpr std::uint64_t kColdReadsToDouble = 2048, kMostDoubled = 6;  // from 64 KiB to 4 MiB

}  // namespace

FileRange PageStore::place_of(std::uint64_t first, std::uint64_t count) const noexcept {
  const PageMap& map = image_.page_map();
  if (count == 0) return {0, 0};
  if (map.encoding == Encoding::raw)
    return {map.data_offset + first * kPageSize, count * kPageSize};
  const Frame& from = map.frames[first / format::kFramePages];
  const Frame& to = map.frames[(first + count - 1) / format::kFramePages];
  return {from.offset, to.offset + to.size_bytes - from.offset};
}

void PageStore::read_ahead(std::uint64_t first, std::uint64_t count) const noexcept {
  const FileRange place = place_of(first, std::min(count, image_.page_map().stored_pages - first));
  sys::read_ahead(image_.bytes().subspan(place.offset, place.size_bytes));
}

/// A page from a cold disk takes 70 µs, and 64 KiB not twice that: its neighbours are likely to be
/// wanted as well.  Who goes on to want pages that are cold wants much of the image: then ever more
/// of it is read at once.
void PageStore::read_around(std::uint64_t page) const noexcept {
  if (!sys::is_cold(image_.bytes().data() + place_of(page, 1).offset)) return;
  const std::uint64_t grown = std::min(cold_reads_.fetch_add(1) / kColdReadsToDouble, kMostDoubled);
  const std::uint64_t count = format::kFramePages << grown;
  read_ahead(page / count * count, count);
}

std::span<const std::byte> PageStore::read(std::uint64_t first, std::uint64_t count,
                                           Scratch& scratch) const {
  const std::uint64_t stored_pages = image_.page_map().stored_pages;
  if (count > kMaxPages || first > stored_pages || count > stored_pages - first)
    throw Error{Errc::internal,
                fmt::format("read of {} pages at {} of {}", count, first, stored_pages)};
  if (count == 0) return {};
  return encoding() == Encoding::raw ? read_raw(first, count) : read_frames(first, count, scratch);
}

std::span<const std::byte> PageStore::read_raw(std::uint64_t first, std::uint64_t count) const {
  const PageMap& map = image_.page_map();
  const auto pages = image_.bytes().subspan(map.data_offset + first * kPageSize, count * kPageSize);
  if (!sys::try_populate(pages))
    throw Error{Errc::io, fmt::format("stored page {} cannot be read: the image has become "
                                      "shorter, or the disk fails",
                                      first)};
  for (std::uint64_t i = 0; i < count; ++i)
    verify(first + i, pages.subspan(i * kPageSize, kPageSize));
  return pages;
}

void PageStore::verify(std::uint64_t page, std::span<const std::byte> bytes) const {
  const PageMap& map = image_.page_map();
  if (digest64(bytes) != map.page_digests[page])
    corrupt("stored page {}, of address {:#x}, differs from its digest", page,
            address_of(map, page));
}

std::span<const std::byte> PageStore::read_awaited(std::uint64_t page, Scratch& scratch) const {
  if (file_ != nullptr && encoding() == Encoding::raw) {
    scratch.copied_.resize(kPageSize);
    if (sys::try_read_cached(*file_, scratch.copied_, place_of(page, 1).offset)) {
      verify(page, scratch.copied_);
      return scratch.copied_;
    }
  }
  read_around(page);
  return read(page, 1, scratch);
}

std::span<const std::byte> PageStore::read_frames(std::uint64_t first, std::uint64_t count,
                                                  Scratch& scratch) const {
  const std::uint64_t decoded_pages = scratch.decoded_.size() / kPageSize;
  const bool is_there = first >= scratch.first_page_ &&
                        first - scratch.first_page_ < decoded_pages &&
                        count <= decoded_pages - (first - scratch.first_page_);
  if (!is_there)
    decode(first / format::kFramePages, (first + count - 1) / format::kFramePages, scratch);
  return std::span{scratch.decoded_}.subspan((first - scratch.first_page_) * kPageSize,
                                             count * kPageSize);
}

void PageStore::decode(std::uint64_t first_frame, std::uint64_t last_frame,
                       Scratch& scratch) const {
  const PageMap& map = image_.page_map();
  const std::uint64_t first_page = first_frame * format::kFramePages;
  const std::uint64_t end_page = std::min(map.stored_pages, (last_frame + 1) * format::kFramePages);

  // Empty while it is filled: should a frame be damaged, the next read must not find half of it.
  std::vector<std::byte> pages = std::exchange(scratch.decoded_, {});
  pages.resize((end_page - first_page) * kPageSize);
  auto left = std::span{pages};
  for (std::uint64_t i = first_frame; i <= last_frame; ++i) {
    const Frame& frame = map.frames[i];
    const auto stored = image_.bytes().subspan(frame.offset, frame.size_bytes);
    if (!sys::try_populate(stored))
      throw Error{Errc::io, fmt::format("the frame at {} cannot be read: the image has become "
                                        "shorter, or the disk fails",
                                        frame.offset)};
    const auto place = left.first(std::min(left.size(), format::kFrameBytes));
    scratch.decoder_.decode(frame, stored, place);
    left = left.subspan(place.size());
  }
  scratch.decoded_ = std::move(pages);
  scratch.first_page_ = first_page;
}

}  // namespace icecore
