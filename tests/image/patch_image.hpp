// SPDX-License-Identifier: Apache-2.0
#pragma once

// Changes to an image that its digests then agree with: what an attacker would do, and what random
// damage never does.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "image/elf_note.hpp"
#include "image/format.hpp"
#include "image/page_map.hpp"

namespace icecore::test {

inline format::FirstPage first_page(std::span<const std::byte> image) {
  format::FirstPage page;
  std::memcpy(&page, image.data(), sizeof page);
  return page;
}

/// Makes both digests of the first page right again, as far as its offsets lead into the image.
inline void fix_digests(std::span<std::byte> image) {
  if (image.size() < sizeof(format::FirstPage)) return;
  format::FirstPage page = first_page(image);
  const std::uint64_t offset = page.header.metadata_offset;
  const std::uint64_t size_bytes = page.header.metadata_size;
  if (offset <= image.size() && size_bytes <= image.size() - offset)
    page.header.metadata_digest = digest128(image.subspan(offset, size_bytes));
  page.header.first_page_digest = {};
  page.header.first_page_digest = digest128(std::as_bytes(std::span{&page, 1}));
  std::memcpy(image.data(), &page, sizeof page);
}

/// Changes the header, and makes the digests right again.
template <class Change>
void patch_header(std::span<std::byte> image, Change change) {
  format::FirstPage page = first_page(image);
  change(page.header);
  std::memcpy(image.data(), &page, sizeof page);
  fix_digests(image);
}

/// The descriptor of one of our notes; empty when there is none.
inline std::span<std::byte> find_note(std::span<std::byte> image, std::uint32_t type) {
  const format::Header header = first_page(image).header;
  if (header.notes_offset > image.size() || header.notes_size > image.size() - header.notes_offset)
    return {};
  ElfNoteReader notes{image.subspan(header.notes_offset, header.notes_size)};
  while (const auto note = notes.next())
    if (note->type == type)
      return image.subspan(static_cast<std::size_t>(note->descriptor.data() - image.data()),
                           note->descriptor.size());
  return {};
}

/// Changes one entry of a table that lies in a note, and makes the digests right again.
template <class Entry, class Change>
void patch_entry(std::span<std::byte> image, std::uint32_t type, std::size_t index, Change change) {
  const auto table = find_note(image, type);
  if (table.size() < (index + 1) * sizeof(Entry)) throw std::logic_error("no such entry");
  Entry entry;
  std::memcpy(&entry, &table[index * sizeof entry], sizeof entry);
  change(entry);
  std::memcpy(&table[index * sizeof entry], &entry, sizeof entry);
  fix_digests(image);
}

/// Makes the digests of all frames right again.
inline void fix_frame_digests(std::span<std::byte> image) {
  const auto table = find_note(image, format::kFramesNote);
  for (std::size_t at = 0; at + sizeof(Frame) <= table.size(); at += sizeof(Frame)) {
    Frame frame;
    std::memcpy(&frame, &table[at], sizeof frame);
    if (frame.offset > image.size() || frame.size_bytes > image.size() - frame.offset) continue;
    const Digest128 digest = digest128(image.subspan(frame.offset, frame.size_bytes));
    frame.digest_low = digest.low;
    frame.digest_high = digest.high;
    std::memcpy(&table[at], &frame, sizeof frame);
  }
}

}  // namespace icecore::test
