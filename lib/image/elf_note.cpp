// SPDX-License-Identifier: Apache-2.0
#include "image/elf_note.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "image/corrupt.hpp"

namespace icecore {
namespace {

constexpr std::size_t kNoteAlignment = 4;

}  // namespace

void append_note(Bytes& out, std::string_view owner, std::uint32_t type,
                 std::span<const std::byte> descriptor) {
  if (descriptor.size() > std::numeric_limits<std::uint32_t>::max())
    throw Error{Errc::unsupported, "the process is too large: a table of its image exceeds 4 GiB"};
  const Elf64_Nhdr header{.n_namesz = static_cast<std::uint32_t>(owner.size() + 1),
                          .n_descsz = static_cast<std::uint32_t>(descriptor.size()),
                          .n_type = type};
  append(out, std::as_bytes(std::span{&header, 1}));
  append(out, std::as_bytes(std::span{owner}));
  out.push_back(std::byte{0});
  pad(out, kNoteAlignment);
  append(out, descriptor);
  pad(out, kNoteAlignment);
}

std::optional<ElfNote> ElfNoteReader::next() {
  if (left_.empty()) return std::nullopt;
  Elf64_Nhdr header;
  std::memcpy(&header, take(sizeof header).data(), sizeof header);
  const auto owner = take(header.n_namesz);
  const auto descriptor = take(header.n_descsz);
  require(!owner.empty() && owner.back() == std::byte{0}, "a note without an owner");
  return ElfNote{
      .owner = {reinterpret_cast<const char*>(owner.data()), owner.size() - 1},
      .type = header.n_type,
      .descriptor = descriptor,
  };
}

// The next `size_bytes`; their padding is dropped.
std::span<const std::byte> ElfNoteReader::take(std::uint32_t size_bytes) {
  require(size_bytes <= left_.size(), "a note of {} bytes where {} are left", size_bytes,
          left_.size());
  const auto taken = left_.first(size_bytes);
  const std::size_t padding = (kNoteAlignment - size_bytes % kNoteAlignment) % kNoteAlignment;
  left_ = left_.subspan(std::min(left_.size(), size_bytes + padding));
  return taken;
}

}  // namespace icecore
