// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace icecore {

inline constexpr std::size_t kPageSize = 4096;

/// Neighbouring pages of a process.
struct PageRun {
  std::uint64_t address;  ///< of the first page; a multiple of kPageSize
  std::uint64_t pages;

  std::uint64_t end() const noexcept { return address + pages * kPageSize; }
  friend bool operator==(const PageRun&, const PageRun&) = default;
};

}  // namespace icecore
