// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <utility>

#include "icecore/error.hpp"

namespace icecore {

template <class... Args>
[[noreturn]] void corrupt(fmt::format_string<Args...> what, Args&&... args) {
  throw Error{Errc::corrupt_image,
              "damaged image: " + fmt::format(what, std::forward<Args>(args)...)};
}

/// What an image says must hold, or the image is refused.
template <class... Args>
void require(bool holds, fmt::format_string<Args...> what, Args&&... args) {
  if (!holds) corrupt(what, std::forward<Args>(args)...);
}

}  // namespace icecore
