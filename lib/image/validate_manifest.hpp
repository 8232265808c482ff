// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "image/page_map.hpp"

namespace icecore {

namespace state {
struct ManifestT;
}

/// Holds a manifest, and the pages stored with it, against every rule that code which restores a
/// process relies on.  The rules are those of docs/image-format.md, "The manifest".
/// Throws Errc::corrupt_image naming the first that is broken.
void validate_manifest(const state::ManifestT& manifest, const PageMap& map);

}  // namespace icecore
