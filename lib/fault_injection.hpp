// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace icecore {

/// A stage at which tests let icecore die: the process kills itself here when the environment
/// variable ICECORE_DIE_AT names `stage`.  Costs a look at the environment.
void fault_point(const char* stage) noexcept;

}  // namespace icecore
