// SPDX-License-Identifier: Apache-2.0
#include "image/image_writer.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "icecore/error.hpp"
#include "image/core_notes.hpp"
#include "image/core_segments.hpp"
#include "image/elf_note.hpp"
#include "image/format.hpp"
#include "image/manifest_codec.hpp"
#include "image/validate_manifest.hpp"

namespace icecore {
namespace {

constexpr std::size_t kMetadataAlignment = 8;

/// What lies behind the pages, and where in the file.
struct Metadata {
  explicit Metadata(std::uint64_t start_of_bytes) : start(start_of_bytes) {}

  std::uint64_t end() const { return start + bytes.size(); }

  std::uint64_t start;
  Bytes bytes;
};

template <class T, class Allocator>
std::span<const std::byte> bytes_of(const std::vector<T, Allocator>& table) {
  return std::as_bytes(std::span{table});
}

// What cannot be read back must not be written; that it came to this is a mistake of ours.
void validate_own(const state::ManifestT& manifest, const PageMap& map) {
  try {
    validate_manifest(manifest, map);
  } catch (const Error& e) {
    throw Error{Errc::internal, std::string{"the snapshot contradicts itself: "} + e.what()};
  }
}

Elf64_Phdr note_segment(std::uint64_t start, std::uint64_t end) {
  return {.p_type = PT_NOTE,
          .p_flags = 0,
          .p_offset = start,
          .p_vaddr = 0,
          .p_paddr = 0,
          .p_filesz = end - start,
          .p_memsz = 0,
          .p_align = 4};
}

Elf64_Phdr add_core_notes(Metadata& metadata, const state::ManifestT& manifest) {
  append_core_notes(metadata.bytes, manifest);
  return note_segment(metadata.start, metadata.end());
}

Elf64_Phdr add_icecore_notes(Metadata& metadata, std::span<const std::byte> encoded,
                             const PageMap& map) {
  // FlatBuffers wants the manifest on a multiple of 8.  The note before it, header and owner, has
  // 20 bytes, so the notes begin 4 beyond such a multiple.
  static_assert(sizeof(Elf64_Nhdr) + sizeof format::kNoteOwner == 20);
  if (metadata.end() % 8 != 4) metadata.bytes.resize(metadata.bytes.size() + 4);

  const std::uint64_t start = metadata.end();
  const auto add = [&](std::uint32_t type, std::span<const std::byte> descriptor) {
    append_note(metadata.bytes, format::kNoteOwner, type, descriptor);
  };
  add(format::kManifestNote, encoded);
  add(format::kPageRunsNote, bytes_of(map.runs));
  if (map.encoding == Encoding::raw)
    add(format::kPageDigestsNote, bytes_of(map.page_digests));
  else
    add(format::kFramesNote, bytes_of(map.frames));
  return note_segment(start, metadata.end());
}

Elf64_Ehdr elf_header() {
  Elf64_Ehdr elf{};
  std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
  elf.e_ident[EI_CLASS] = ELFCLASS64;
  elf.e_ident[EI_DATA] = ELFDATA2LSB;
  elf.e_ident[EI_VERSION] = EV_CURRENT;
  elf.e_type = ET_CORE;
  elf.e_machine = EM_X86_64;
  elf.e_version = EV_CURRENT;
  elf.e_ehsize = sizeof(Elf64_Ehdr);
  elf.e_phentsize = sizeof(Elf64_Phdr);
  return elf;
}

Elf64_Ehdr add_segments(Metadata& metadata, const std::vector<Elf64_Phdr>& segments) {
  pad(metadata.bytes, 8);
  Elf64_Ehdr elf = elf_header();
  elf.e_phoff = metadata.end();
  append(metadata.bytes, bytes_of(segments));
  if (segments.size() < PN_XNUM) {
    elf.e_phnum = static_cast<Elf64_Half>(segments.size());
    return elf;
  }
  // e_phnum has 16 bits; a larger count goes into the otherwise empty first section header.
  Elf64_Shdr section{};
  section.sh_info = static_cast<Elf64_Word>(segments.size());
  elf.e_phnum = PN_XNUM;
  elf.e_shoff = metadata.end();
  elf.e_shentsize = sizeof(Elf64_Shdr);
  elf.e_shnum = 1;
  append(metadata.bytes, std::as_bytes(std::span{&section, 1}));
  return elf;
}

format::FirstPage first_page(const Elf64_Ehdr& elf, const PageMap& map, std::uint64_t data_end,
                             const Metadata& metadata, const Elf64_Phdr& icecore_notes) {
  format::FirstPage page{};
  page.elf = elf;
  page.header = {
      .magic = format::kMagic,
      .major_version = format::kMajorVersion,
      .minor_version = format::kMinorVersion,
      .encoding = static_cast<std::uint32_t>(map.encoding),
      .reserved = 0,
      .unused = 0,
      .file_size = metadata.end(),
      .data_offset = format::kDataOffset,
      .data_size = data_end - format::kDataOffset,
      .metadata_offset = metadata.start,
      .metadata_size = metadata.bytes.size(),
      .notes_offset = icecore_notes.p_offset,
      .notes_size = icecore_notes.p_filesz,
      .metadata_digest = digest128(metadata.bytes),
      .first_page_digest = {},
  };
  page.header.first_page_digest = digest128(std::as_bytes(std::span{&page, 1}));
  return page;
}

}  // namespace

ImageWriter::ImageWriter(std::filesystem::path path)
    : file_(std::move(path)), position_(format::kDataOffset) {}

ImageWriter::~ImageWriter() = default;

void ImageWriter::append(std::span<const std::byte> bytes) {
  file_.write_at(position_, bytes);
  position_ += bytes.size();
}

void ImageWriter::finish(const state::ManifestT& manifest, const PageMap& map) {
  validate_own(manifest, map);
  const std::uint64_t data_end = position_;
  const std::uint64_t padding =
      (kMetadataAlignment - data_end % kMetadataAlignment) % kMetadataAlignment;
  Metadata metadata{data_end + padding};

  const std::vector<std::byte> encoded = encode_manifest(manifest);
  const std::vector<Elf64_Phdr> memory = core_segments(manifest, map);
  // What the notes of the core file say is in the manifest, too.
  metadata.bytes.reserve(2 * encoded.size() + bytes_of(map.runs).size() +
                         bytes_of(map.page_digests).size() + bytes_of(map.frames).size() +
                         bytes_of(memory).size() + 2 * kMetadataAlignment);

  std::vector<Elf64_Phdr> segments;
  segments.push_back(add_core_notes(metadata, manifest));
  const Elf64_Phdr icecore_notes = add_icecore_notes(metadata, encoded, map);
  segments.push_back(icecore_notes);
  segments.insert(segments.end(), memory.begin(), memory.end());
  const Elf64_Ehdr elf = add_segments(metadata, segments);

  append(std::vector<std::byte>(padding));
  append(metadata.bytes);
  const format::FirstPage page = first_page(elf, map, data_end, metadata, icecore_notes);
  file_.write_at(0, std::as_bytes(std::span{&page, 1}));
  size_bytes_ = position_;
}

void ImageWriter::start_writeback() const noexcept { file_.start_writeback(); }

void ImageWriter::commit(bool fsync) { file_.commit(fsync); }

}  // namespace icecore
