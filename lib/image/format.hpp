// SPDX-License-Identifier: Apache-2.0
#pragma once

// The fixed parts of an image, as they lie in the file.  docs/image-format.md is the
// specification; this is its C++ form.

#include <elf.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "image/digest.hpp"
#include "image/page_run.hpp"

namespace icecore::format {

static_assert(std::endian::native == std::endian::little, "images are little-endian");

inline constexpr std::array<char, 8> kMagic = {'i', 'c', 'e', 'c', 'o', 'r', 'e', '\n'};
inline constexpr std::uint16_t kMajorVersion = 1;  // a reader refuses any other
inline constexpr std::uint16_t kMinorVersion = 0;  // a reader accepts newer

/// Follows the ELF header; the rest of the first page is zero.
struct Header {
  std::array<char, 8> magic;
  std::uint16_t major_version;
  std::uint16_t minor_version;
  std::uint32_t encoding;
  std::uint32_t reserved;  // 0
  std::uint32_t unused;
  std::uint64_t file_size;
  std::uint64_t data_offset;
  std::uint64_t data_size;
  std::uint64_t metadata_offset;
  std::uint64_t metadata_size;
  std::uint64_t notes_offset;
  std::uint64_t notes_size;
  Digest128 metadata_digest;
  Digest128 first_page_digest;  // over the first page with this field 0
};
static_assert(sizeof(Header) == 112);

struct FirstPage {
  Elf64_Ehdr elf;
  Header header;
  std::array<std::byte, kPageSize - sizeof(Elf64_Ehdr) - sizeof(Header)> unused;
};
static_assert(sizeof(FirstPage) == kPageSize);
static_assert(offsetof(FirstPage, header) == 64);

inline constexpr std::uint64_t kDataOffset = sizeof(FirstPage);

// Notes of owner "icecore".  Far from every NT_ value: BFD goes by the type alone for owners that
// it does not know.
inline constexpr char kNoteOwner[] = "icecore";
inline constexpr std::uint32_t kManifestNote = 0x49430001;
inline constexpr std::uint32_t kPageRunsNote = 0x49430002;
inline constexpr std::uint32_t kPageDigestsNote = 0x49430003;
inline constexpr std::uint32_t kFramesNote = 0x49430004;

/// A full frame holds this many pages; the last one of an image may hold fewer.
inline constexpr std::uint64_t kFramePages = 16;
inline constexpr std::size_t kFrameBytes = kFramePages * kPageSize;

/// Pieces of page data that end at multiples of this lie in the page cache in folios of this size.
inline constexpr std::uint64_t kWriteAlignment = std::uint64_t{2} << 20;

}  // namespace icecore::format
