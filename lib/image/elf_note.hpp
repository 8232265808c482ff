// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace icecore {

/// A growing piece of a file.
using Bytes = std::vector<std::byte>;

inline void append(Bytes& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// Zeros up to the next multiple of `alignment`.
inline void pad(Bytes& out, std::size_t alignment) {
  out.resize((out.size() + alignment - 1) / alignment * alignment);
}

/// Appends one ELF note.  `out` must be a multiple of 4 long, and is so again.
/// Throws Errc::unsupported when `descriptor` is 4 GiB or more.
void append_note(Bytes& out, std::string_view owner, std::uint32_t type,
                 std::span<const std::byte> descriptor);

/// A note inside bytes held by somebody else.
struct ElfNote {
  std::string_view owner;  // without the NUL
  std::uint32_t type;
  std::span<const std::byte> descriptor;
};

/// Reads notes one after the other.  Throws Errc::corrupt_image for one that does not fit.
class ElfNoteReader {
 public:
  explicit ElfNoteReader(std::span<const std::byte> notes) : left_(notes) {}

  std::optional<ElfNote> next();

 private:
  std::span<const std::byte> take(std::uint32_t size_bytes);

  std::span<const std::byte> left_;
};

}  // namespace icecore
