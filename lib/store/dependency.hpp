// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "icecore/store.hpp"

namespace icecore {

/// Whether there is the same at the path of `known` as when it was made.  Reads the contents only
/// where the signature differs, as it does after the store was copied to another machine.
bool is_unchanged(const Dependency& known);

}  // namespace icecore
