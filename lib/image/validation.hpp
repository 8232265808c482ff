// SPDX-License-Identifier: Apache-2.0
#pragma once

// The parts of validate_manifest(), and what they have in common.  Each throws Errc::corrupt_image.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "image/corrupt.hpp"
#include "image/page_map.hpp"
#include "image/state_generated.h"

namespace icecore {

/// Mappings, guards, segments, bounds.  Needs the presence of all that the manifest must have.
void validate_address_space(const state::ProcessT& process);

/// Every stored page beyond the addresses of processes must lie in a file that is kept.
void validate_file_pages(const state::ProcessT& process, const PageMap& map);

/// Every other must lie in memory that is the process's own: pages of a shared file mapping belong
/// to the file.
void validate_stored_pages(const std::vector<state::Mapping>& mappings, const PageMap& map);

/// Descriptors, descriptions, pipes, sockets.
void validate_descriptors(const state::ProcessT& process);

// User addresses end one page below 2^47 on x86-64.
constexpr std::uint64_t kAddressEnd = (std::uint64_t{1} << 47) - kPageSize;
constexpr std::uint64_t kMaxFileOffset = (std::uint64_t{1} << 63) - 1;
constexpr std::size_t kSignals = 64;

inline bool is_page_aligned(std::uint64_t value) { return value % kPageSize == 0; }

inline bool has_no_nul(std::string_view text) { return text.find('\0') == text.npos; }

inline void validate_path(const std::string& path, const char* what) {
  require(path.starts_with('/'), "the path of {} is not absolute", what);
  require(has_no_nul(path), "the path of {} holds a NUL byte", what);
}

inline void validate_index(std::int64_t index, std::size_t size, const char* what) {
  require(index >= 0 && static_cast<std::uint64_t>(index) < size, "{} {} of {}", what, index, size);
}

inline void validate_optional_index(std::int64_t index, std::size_t size, const char* what) {
  if (index != -1) validate_index(index, size, what);
}

}  // namespace icecore
