// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/snapshot.hpp>

#include <cstdint>
#include <vector>

#include "image/page_run.hpp"
#include "sys/huge_allocator.hpp"

namespace icecore {

/// A run of 64 KiB or less of stored pages, compressed by itself (or stored as it is when that is
/// not larger).
struct Frame {
  std::uint64_t offset;      ///< in the file
  std::uint32_t size_bytes;  ///< in the file
  std::uint32_t raw;         ///< 1: stored as it is
  std::uint64_t digest_low;  ///< XXH3, 128 bit, of the bytes in the file
  std::uint64_t digest_high;
};

/// 2 MiB for a GiB of memory, and the first thing that a restore reads.
using PageDigests = std::vector<std::uint64_t, sys::HugeAllocator<std::uint64_t>>;

/// Which pages an image stores, and where.
///
/// Stored pages are numbered in the order of their addresses.  Raw: page n lies at
/// data_offset + n * 4096.  zstd: frame n holds pages 16 n to 16 n + 15.
struct PageMap {
  Encoding encoding = Encoding::raw;
  std::uint64_t data_offset = 0;
  std::uint64_t stored_pages = 0;
  std::vector<PageRun> runs;  ///< ascending, not touching
  PageDigests page_digests;   ///< raw: XXH3, 64 bit, of each page
  std::vector<Frame> frames;  ///< zstd
};

}  // namespace icecore
