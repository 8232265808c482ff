#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Shows that check_includes.py finds each kind of broken rule, and nothing in a clean tree."""

import pathlib
import subprocess
import sys
import tempfile

CHECK = pathlib.Path(__file__).parent / "check_includes.py"

CLEAN = {
    "include/icecore/image.hpp": "#include <icecore/export.h>\n#include <memory>\n",
    "lib/snapshot.cpp": '#include "preflight.hpp"\n#include "state/threads.hpp"\n#include "tracee/tracee.hpp"\n',
    "lib/sys/ptrace.cpp": '#include <sys/ptrace.h>\n#include "sys/call.hpp"\nif (errno == ESRCH) {\n',
    "lib/tracee/tracee.cpp": '#include <sys/mman.h>\n#include "sys/ptrace.hpp"\n',
    "lib/image/image_reader.cpp": '#include "image/state_generated.h"\n',
    "lib/state/room.hpp": '#include "tracee/tracee.hpp"\n',
    "lib/state/threads.cpp": '#include "state/threads.hpp"\n#include "state/room.hpp"\n',
    "lib/image/new_file.cpp": "if (errno == EINTR) continue;\n",
    "lib/state/file_table.hpp": "",
    "lib/state/file_table.cpp": '#include "state/file_table.hpp"\n',
    "lib/state/descriptors/regular_file.cpp": '#include "state/file_table.hpp"\n',
    "lib/state/threads.hpp": "// when errno == 0\n",
    "lib/state/process.cpp": '#include "state/threads.hpp"\n#include "state/descriptors/pipe.hpp"\n',
    "lib/state/attributes.cpp": '#include "sys/ptrace.hpp"\n',
    "lib/state/descriptors/pipe.cpp": '#include "state/descriptors/room.hpp"\n',
    "lib/state/descriptors/room.hpp": '#include "state/room.hpp"\n',
    "lib/state/descriptors/descriptors.cpp": '#include "state/descriptors/pipe.hpp"\n',
    "tools/icecore.cpp": '#include <icecore/image.hpp>\n#include "command.hpp"\n',
}

# Each of these lines is one broken rule, added to the clean tree by itself.
BAD = [
    ("lib/sys/call.cpp", '#include "tracee/tracee.hpp"'),
    ("lib/tracee/tracee.cpp", '#include "state/threads.hpp"'),
    ("lib/tracee/tracee.cpp", "#include <sys/ptrace.h>"),
    ("lib/tracee/tracee.cpp", "#include <linux/userfaultfd.h>"),
    ("lib/tracee/tracee.cpp", "  if (::ptrace(PTRACE_CONT, tid, 0, 0) != 0) return;"),
    ("lib/tracee/tracee.cpp", "  if (errno == ESRCH) return;"),
    ("lib/image/image_reader.cpp", '#include "sys/ptrace.hpp"'),
    ("lib/image/image_reader.cpp", '#include "memory/page_store.hpp"'),
    ("lib/memory/page_store.cpp", '#include "tracee/tracee.hpp"'),
    ("lib/compat/cpu.cpp", '#include "state/threads.hpp"'),
    ("lib/state/threads.cpp", '#include "state/attributes.hpp"'),
    ("lib/state/threads.cpp", '#include "state/descriptors/pipe.hpp"'),
    ("lib/state/threads.cpp", '#include "compat/platform.hpp"'),
    ("lib/state/descriptors/eventfd.cpp", '#include "state/descriptors/pipe.hpp"'),
    ("lib/state/process.cpp", '#include "compat/platform.hpp"'),
    ("lib/sys/call.cpp", '#include "preflight.hpp"'),
    ("lib/snapshot.cpp", '#include "tools/command.hpp"'),
    ("lib/snapshot.cpp", "#include <sys/ptrace.hpp>"),
    ("include/icecore/image.hpp", '#include "image/page_map.hpp"'),
    ("tools/icecore.cpp", '#include "image/image_reader.hpp"'),
    ("bench/compare.cpp", '#include "sys/call.hpp"'),
]


def check(files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return subprocess.run([sys.executable, CHECK, root], capture_output=True, text=True)


def main():
    clean = check(CLEAN)
    wrong = [f"clean tree:\n{clean.stdout}{clean.stderr}"] if clean.returncode != 0 else []
    for file, line in BAD:
        text = CLEAN.get(file, "")
        found = check({**CLEAN, file: text + line + "\n"})
        place = f"{file}:{text.count(chr(10)) + 1}: "
        if found.returncode != 1 or not found.stdout.startswith(place) or found.stdout.count("\n") != 1:
            wrong.append(f"{file}: {line}: not found, or more than that:\n{found.stdout}{found.stderr}")
    print("\n".join(wrong) if wrong else f"finds each of {len(BAD)} broken rules")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
