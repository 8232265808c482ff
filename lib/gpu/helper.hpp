// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace icecore::gpu {

/// The main function of the program icecore-gpu.  Its descriptor 3 is a socket to the library.
///
/// It makes the driver's calls, one at a time.  When the library is gone without having said that
/// everything is as it should be, it undoes what it has done to a process: puts its memory back and
/// unlocks it.
int run_helper() noexcept;

}  // namespace icecore::gpu
