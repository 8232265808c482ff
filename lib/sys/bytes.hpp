// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <span>

namespace icecore::sys {

/// `to` has room for all of `from`, and does not overlap it.  std::ranges::copy of GCC 12 copies
/// from a const range byte by byte.
inline void copy_bytes(std::span<const std::byte> from, std::byte* to) noexcept {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

}  // namespace icecore::sys
