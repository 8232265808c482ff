// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "image/elf_note.hpp"

namespace icecore {

namespace state {
struct ManifestT;
}

/// Appends the notes by which debuggers know a core: threads, auxiliary vector, mapped files.
/// In the order in which the kernel writes them; gdb takes the first thread as the current one.
void append_core_notes(Bytes& out, const state::ManifestT& manifest);

}  // namespace icecore
