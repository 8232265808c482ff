// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "image/state_generated.h"

namespace icecore {

inline bool has(const state::Mapping& mapping, state::MappingFlag flag) {
  return (mapping.vm_flags() & static_cast<std::uint64_t>(flag)) != 0;
}

}  // namespace icecore
