// SPDX-License-Identifier: Apache-2.0
#pragma once

// What memory of this machine can be: tried on some of our own.

#include <cstdint>
#include <span>

namespace icecore::sys {

bool has_droppable_memory() noexcept;  ///< MAP_DROPPABLE, Linux 6.11
bool has_sealing() noexcept;           ///< mseal(2), Linux 6.10
bool has_guard_pages() noexcept;       ///< MADV_GUARD_INSTALL, Linux 6.13

/// mbind(2) of such a policy gives just that: all of its nodes are there, and allowed to us.
bool takes_memory_policy(std::uint32_t mode, std::span<const std::uint64_t> nodes);

/// How many huge pages of one size can still be mapped.
std::uint64_t free_huge_pages(std::uint64_t size_bytes);

}  // namespace icecore::sys
