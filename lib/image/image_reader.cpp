// SPDX-License-Identifier: Apache-2.0
#include "image/image_reader.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "image/corrupt.hpp"
#include "image/elf_note.hpp"
#include "image/format.hpp"
#include "image/manifest_codec.hpp"
#include "image/state_generated.h"
#include "image/validate_manifest.hpp"
#include "sys/mapping.hpp"

namespace icecore {
namespace {

// Subtracts rather than adds: offset + size could wrap, size_left - offset cannot.
std::span<const std::byte> slice(std::span<const std::byte> bytes, std::uint64_t offset,
                                 std::uint64_t size_bytes, std::string_view what) {
  require(offset <= bytes.size() && size_bytes <= bytes.size() - offset,
          "{} at {}, {} bytes long, outside of {} bytes", what, offset, size_bytes, bytes.size());
  return bytes.subspan(offset, size_bytes);
}

// ---- the first page -------------------------------------------------------------------------

/// Nothing else may be believed before this.
void check_magic_and_version(std::span<const std::byte> image) {
  format::Header header{};
  const std::size_t offset = offsetof(format::FirstPage, header);
  if (image.size() >= offset)
    std::memcpy(&header, image.data() + offset, std::min(image.size() - offset, sizeof header));
  if (header.magic != format::kMagic) throw Error{Errc::corrupt_image, "not an icecore image"};
  require(image.size() >= kPageSize, "it is truncated to {} bytes", image.size());
  if (header.major_version != format::kMajorVersion)
    throw Error{Errc::incompatible,
                fmt::format("the image has format version {}.{}; this icecore reads version {}",
                            header.major_version, header.minor_version, format::kMajorVersion)};
}

void check_digest(format::FirstPage page) {
  const Digest128 expected = std::exchange(page.header.first_page_digest, {});
  require(digest128(std::as_bytes(std::span{&page, 1})) == expected,
          "the first page differs from its digest");
}

void check_layout(const format::Header& header, std::span<const std::byte> image) {
  require(header.file_size == image.size(), "it has {} of {} bytes", image.size(),
          header.file_size);
  require(header.encoding <= static_cast<std::uint32_t>(Encoding::zstd), "unknown encoding {}",
          header.encoding);
  require(header.reserved == 0, "reserved bits of the header are set");
  require(header.data_offset == format::kDataOffset, "page data at {}", header.data_offset);
  const std::uint64_t data_left = image.size() - format::kDataOffset;
  require(header.data_size <= data_left, "{} bytes of page data", header.data_size);
  const std::uint64_t data_end = format::kDataOffset + header.data_size;
  const std::uint64_t padding = (8 - data_end % 8) % 8;
  require(padding <= image.size() - data_end && header.metadata_offset == data_end + padding,
          "metadata at {}", header.metadata_offset);
  require(header.metadata_size == image.size() - header.metadata_offset, "{} bytes of metadata",
          header.metadata_size);
}

format::Header read_header(std::span<const std::byte> image) {
  check_magic_and_version(image);
  format::FirstPage page;
  std::memcpy(&page, image.data(), sizeof page);
  check_digest(page);
  check_layout(page.header, image);
  return page.header;
}

void check_padding(const format::Header& header, std::span<const std::byte> image) {
  const std::uint64_t data_end = header.data_offset + header.data_size;
  for (const std::byte byte : image.subspan(data_end, header.metadata_offset - data_end))
    require(byte == std::byte{0}, "padding behind the page data is not zero");
}

// ---- notes ----------------------------------------------------------------------------------

struct Notes {
  std::optional<std::span<const std::byte>> manifest, page_runs, page_digests, frames;

  std::optional<std::span<const std::byte>>* find(std::uint32_t type) {
    switch (type) {
      case format::kManifestNote:
        return &manifest;
      case format::kPageRunsNote:
        return &page_runs;
      case format::kPageDigestsNote:
        return &page_digests;
      case format::kFramesNote:
        return &frames;
      default:
        return nullptr;  // of a newer minor version
    }
  }
};

Notes read_notes(std::span<const std::byte> bytes) {
  Notes notes;
  ElfNoteReader reader{bytes};
  while (const auto note = reader.next()) {
    require(note->owner == format::kNoteOwner, "a note of somebody else among ours");
    auto* const place = notes.find(note->type);
    if (place == nullptr) continue;
    require(!place->has_value(), "two notes {:#x}", note->type);
    *place = note->descriptor;
  }
  return notes;
}

std::span<const std::byte> existing(const std::optional<std::span<const std::byte>>& note,
                                    std::string_view what) {
  require(note.has_value(), "it has no {}", what);
  return *note;
}

template <class Table>
Table read_table(std::span<const std::byte> bytes, std::string_view what) {
  constexpr std::size_t kEntryBytes = sizeof(typename Table::value_type);
  require(bytes.size() % kEntryBytes == 0, "{} of {} bytes", what, bytes.size());
  Table table(bytes.size() / kEntryBytes);
  if (!table.empty()) std::memcpy(table.data(), bytes.data(), bytes.size());
  return table;
}

// ---- the page map ---------------------------------------------------------------------------

/// Checks that runs ascend without touching, and returns how many pages they have.
std::uint64_t count_pages(const std::vector<PageRun>& runs) {
  std::uint64_t pages = 0;
  std::optional<std::uint64_t> previous_end;
  for (const PageRun& run : runs) {
    require(run.address % kPageSize == 0 && run.address < kFilePagesEnd && run.pages != 0 &&
                run.pages <= (kFilePagesEnd - run.address) / kPageSize,
            "a run of {} pages at {:#x}", run.pages, run.address);
    require(!previous_end || *previous_end < run.address, "the run at {:#x} is out of order",
            run.address);
    previous_end = run.end();
    pages += run.pages;  // cannot wrap: all of them lie apart below 2^62
  }
  return pages;
}

void read_raw(PageMap& map, const format::Header& header, const Notes& notes) {
  map.page_digests =
      read_table<PageDigests>(existing(notes.page_digests, "page digests"), "page digests");
  require(header.data_size % kPageSize == 0 && header.data_size / kPageSize == map.stored_pages,
          "{} stored pages in {} bytes", map.stored_pages, header.data_size);
  require(map.page_digests.size() == map.stored_pages, "{} digests for {} stored pages",
          map.page_digests.size(), map.stored_pages);
}

void check_frames(const PageMap& map, std::uint64_t data_end) {
  std::uint64_t offset = map.data_offset;
  std::uint64_t pages_left = map.stored_pages;
  for (const Frame& frame : map.frames) {
    const std::uint64_t pages = std::min(pages_left, format::kFramePages);
    const std::uint64_t decoded_bytes = pages * kPageSize;
    require(frame.offset == offset, "a frame at {} instead of {}", frame.offset, offset);
    require(frame.raw <= 1, "reserved bits of a frame are set");
    require(frame.raw == 1 ? frame.size_bytes == decoded_bytes
                           : frame.size_bytes != 0 && frame.size_bytes < decoded_bytes,
            "a frame of {} bytes for {}", frame.size_bytes, decoded_bytes);
    require(frame.size_bytes <= data_end - offset, "a frame beyond the page data");
    offset += frame.size_bytes;
    pages_left -= pages;
  }
  require(offset == data_end, "the frames end at {}, the page data at {}", offset, data_end);
}

void read_frames(PageMap& map, const format::Header& header, const Notes& notes) {
  map.frames = read_table<std::vector<Frame>>(existing(notes.frames, "frames"), "frames");
  const std::uint64_t needed = (map.stored_pages + format::kFramePages - 1) / format::kFramePages;
  require(map.frames.size() == needed, "{} frames for {} stored pages", map.frames.size(),
          map.stored_pages);
  check_frames(map, header.data_offset + header.data_size);
}

PageMap read_page_map(const format::Header& header, const Notes& notes) {
  PageMap map;
  map.encoding = static_cast<Encoding>(header.encoding);
  map.data_offset = header.data_offset;
  map.runs = read_table<std::vector<PageRun>>(existing(notes.page_runs, "page runs"), "page runs");
  map.stored_pages = count_pages(map.runs);
  if (map.encoding == Encoding::raw)
    read_raw(map, header, notes);
  else
    read_frames(map, header, notes);
  return map;
}

}  // namespace

static_assert(sizeof(PageRun) == 16 && sizeof(Frame) == 32, "as they lie in the file");
static_assert(static_cast<int>(Encoding::raw) == 0 && static_cast<int>(Encoding::zstd) == 1);

ImageReader::ImageReader(std::span<const std::byte> image) : image_(image) {
  const format::Header header = read_header(image);
  minor_version_ = header.minor_version;
  identity_ = header.first_page_digest;
  check_padding(header, image);
  const auto metadata = slice(image, header.metadata_offset, header.metadata_size, "metadata");
  sys::read_ahead(metadata);  // a large page map comes from a cold disk 128 KiB at a time otherwise
  require(digest128(metadata) == header.metadata_digest, "the metadata differ from their digest");

  require(header.notes_offset >= header.metadata_offset && header.notes_offset % 8 == 4,
          "notes at {}", header.notes_offset);
  const auto notes_bytes =
      slice(metadata, header.notes_offset - header.metadata_offset, header.notes_size, "notes");
  const Notes notes = read_notes(notes_bytes);
  page_map_ = read_page_map(header, notes);
  manifest_ = decode_manifest(existing(notes.manifest, "manifest"));
  validate_manifest(*manifest_, page_map_);
}

ImageReader::~ImageReader() = default;
ImageReader::ImageReader(ImageReader&&) noexcept = default;

std::uint16_t ImageReader::major_version() const noexcept { return format::kMajorVersion; }
std::uint16_t ImageReader::minor_version() const noexcept { return minor_version_; }

}  // namespace icecore
