// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace icecore {

/// How far a snapshot, restore or verification has come.
struct Progress {
  std::string_view stage;  ///< "pages", "sync", "fill" …; a string literal
  std::uint64_t done_bytes;
  std::uint64_t total_bytes;  ///< 0 while not known
};

/// Called at most every few mebibytes, on a thread of the library; must not call back into it.
using ProgressCallback = std::function<void(const Progress&)>;

}  // namespace icecore
