// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stop_token>
#include <vector>

#include "icecore/progress.hpp"
#include "image/page_run.hpp"
#include "memory/page_encoder.hpp"
#include "sys/remote_memory.hpp"

namespace icecore {

/// Reads pages of another process and hands them to the encoder, in order.
/// Throws Errc::cancelled when asked to stop.
void read_pages(const sys::RemoteMemory& memory, const std::vector<PageRun>& runs,
                PageEncoder& encoder, const ProgressCallback& progress,
                const std::stop_token& stop);

}  // namespace icecore
