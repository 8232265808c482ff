// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stop_token>

#include "icecore/progress.hpp"
#include "image/image_reader.hpp"
#include "memory/page_encoder.hpp"
#include "memory/page_selection.hpp"
#include "sys/fd.hpp"
#include "sys/remote_memory.hpp"

namespace icecore {

/// Reads pages of another process, and of the image that what it lacks is in, and hands them to the
/// encoder, in order.  `image` may be null when nothing is lacking.
/// Throws Errc::cancelled when asked to stop.
void read_pages(const sys::RemoteMemory& memory, const ImageReader* image,
                const PageSelection& selection, PageEncoder& encoder,
                const ProgressCallback& progress, const std::stop_token& stop);

/// Reads what a file of `size` bytes holds, but for its holes, and hands it to the encoder as if it
/// were mapped at `address`.
void read_file_pages(const sys::Fd& file, std::uint64_t address, std::uint64_t size,
                     PageEncoder& encoder, const std::stop_token& stop);

}  // namespace icecore
