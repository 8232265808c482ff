// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <elf.h>

#include <vector>

#include "image/page_map.hpp"

namespace icecore {

namespace state {
struct ManifestT;
}

/// The PT_LOAD program headers by which a debugger finds memory in a raw image; for zstd none.
///
/// Stored pages have contents in the file; anonymous memory without stored pages has none and reads
/// as zero; file mappings without stored pages are left out, the debugger knows them from NT_FILE.
std::vector<Elf64_Phdr> core_segments(const state::ManifestT& manifest, const PageMap& map);

}  // namespace icecore
