// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <zstd.h>

#include <cstddef>
#include <memory>
#include <span>

#include "image/page_map.hpp"

namespace icecore {

/// Compresses frames, one at a time.  Use on one thread at a time.
class FrameEncoder {
 public:
  explicit FrameEncoder(int level);

  /// Encodes `pages` (64 KiB or less) to the front of `out`, which is at least as large.  Says
  /// everything of the frame but its offset in the file.
  Frame encode(std::span<const std::byte> pages, std::span<std::byte> out);

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const noexcept { ::ZSTD_freeCCtx(context); }
  };
  std::unique_ptr<ZSTD_CCtx, Free> context_;
};

/// Takes frames apart again.  Use on one thread at a time.
class FrameDecoder {
 public:
  /// Fills `pages` from `stored`, the bytes of `frame` in the file.
  /// Throws Errc::corrupt_image; then what is in `pages` means nothing.
  void decode(const Frame& frame, std::span<const std::byte> stored, std::span<std::byte> pages);

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const noexcept { ::ZSTD_freeDCtx(context); }
  };
  std::unique_ptr<ZSTD_DCtx, Free> context_;  // made when first needed
};

}  // namespace icecore
