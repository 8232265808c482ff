// SPDX-License-Identifier: Apache-2.0
#include "memory/frame_codec.hpp"

#include <algorithm>
#include <new>

#include "image/corrupt.hpp"
#include "image/digest.hpp"
#include "sys/bytes.hpp"

namespace icecore {

FrameEncoder::FrameEncoder(int level) : context_(::ZSTD_createCCtx()) {
  if (!context_) throw std::bad_alloc{};
  ::ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
}

Frame FrameEncoder::encode(std::span<const std::byte> pages, std::span<std::byte> out) {
  // One byte short of the pages: what does not fit does not shrink, and zstd stops early.
  const std::size_t size_bytes =
      ::ZSTD_compress2(context_.get(), out.data(), pages.size() - 1, pages.data(), pages.size());
  const bool raw = ::ZSTD_isError(size_bytes) != 0;
  if (raw) sys::copy_bytes(pages, out.data());

  const auto stored = out.first(raw ? pages.size() : size_bytes);
  const Digest128 digest = digest128(stored);
  return {.offset = 0,
          .size_bytes = static_cast<std::uint32_t>(stored.size()),
          .raw = raw ? 1u : 0u,
          .digest_low = digest.low,
          .digest_high = digest.high};
}

void FrameDecoder::decode(const Frame& frame, std::span<const std::byte> stored,
                          std::span<std::byte> pages) {
  const Digest128 expected{.low = frame.digest_low, .high = frame.digest_high};
  require(digest128(stored) == expected, "the frame at {} differs from its digest", frame.offset);
  if (frame.raw == 1) {
    sys::copy_bytes(stored, pages.data());
    return;
  }
  if (!context_) context_.reset(::ZSTD_createDCtx());
  if (!context_) throw std::bad_alloc{};
  const std::size_t size_bytes = ::ZSTD_decompressDCtx(context_.get(), pages.data(), pages.size(),
                                                       stored.data(), stored.size());
  require(size_bytes == pages.size(), "the frame at {} does not hold {} bytes", frame.offset,
          pages.size());
}

}  // namespace icecore
