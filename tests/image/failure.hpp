// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "icecore/error.hpp"

namespace icecore::test {

/// The Error that `work` throws; nullopt when it does not.
template <class Work>
std::optional<Error> failure_of(Work work) {
  try {
    work();
  } catch (const Error& e) {
    return e;
  }
  return std::nullopt;
}

}  // namespace icecore::test
