// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "image/page_map.hpp"

namespace icecore {

namespace state {
struct GpuBufferT;
struct ManifestT;
struct ProcessT;
}  // namespace state

/// Holds a manifest, and the pages stored with it, against every rule that code which restores a
/// process relies on.  The rules are those of docs/image-format.md, "The manifest".
/// Throws Errc::corrupt_image naming the first that is broken.
void validate_manifest(const state::ManifestT& manifest, const PageMap& map);

/// The part of that which depends on what a program says of itself.
void validate_gpu_buffer(const state::ProcessT& process, const state::GpuBufferT& buffer);

}  // namespace icecore
