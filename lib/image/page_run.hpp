// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "sys/page.hpp"

namespace icecore {

/// Stored pages at addresses between these are the contents of files, each as if it were mapped
/// there: beyond everything that a process can map.
inline constexpr std::uint64_t kFilePagesStart = std::uint64_t{1} << 47;
inline constexpr std::uint64_t kFilePagesEnd = std::uint64_t{1} << 62;

/// Neighbouring pages of a process, or of a file.
struct PageRun {
  std::uint64_t address;  ///< of the first page; a multiple of kPageSize
  std::uint64_t pages;

  std::uint64_t end() const noexcept { return address + pages * kPageSize; }
  friend bool operator==(const PageRun&, const PageRun&) = default;
};

}  // namespace icecore
