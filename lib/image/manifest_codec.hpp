// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace icecore {

namespace state {
struct ManifestT;
}

/// The manifest as FlatBuffers.  The same manifest gives the same bytes.
std::vector<std::byte> encode_manifest(const state::ManifestT& manifest);

/// Throws Errc::corrupt_image when `bytes` are not a well-formed manifest.  Well-formed is not yet
/// meaningful: see validate_manifest().  Allocates at most a few times the size of `bytes`.
std::unique_ptr<const state::ManifestT> decode_manifest(std::span<const std::byte> bytes);

}  // namespace icecore
