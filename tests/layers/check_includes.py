#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks which part of the source includes which, and that only lib/sys talks to the kernel.

    check_includes.py SOURCE_DIRECTORY

Prints one line for each line of source that breaks a rule; exit status 1 if there is any.
"""

import pathlib
import re
import sys

# What a place may include besides <icecore/…>: beginnings of paths.  For a file counts the entry
# that is the longest beginning of its own path.
MAY_INCLUDE = {
    "lib/sys/": ["sys/"],
    "lib/tracee/": ["sys/", "tracee/"],
    # Bytes only, so that a fuzzer can drive it; of sys just what maps and writes its file.
    "lib/image/": ["image/", "sys/mapping.hpp", "sys/fd.hpp", "sys/call.hpp", "sys/check.hpp",
                   "sys/page.hpp", "sys/huge_allocator.hpp", "sys/writeback.hpp"],
    "lib/memory/": ["sys/", "image/", "memory/"],
    "lib/state/": ["sys/", "tracee/", "image/", "memory/", "state/"],  # and see breaks_state_rule()
    "lib/pager/": ["sys/", "image/", "memory/", "pager/"],
    "lib/gpu/": ["sys/", "tracee/", "image/", "gpu/"],
    # Inside other programs; what it shares with the rest is one header.
    "lib/guest/": ["area.h", "gpu.h", "gpu_driver.h"],
    "lib/api/": [],  # the public C++ interface is enough
    "lib/json/": ["json/"],  # text only
    "lib/compat/": ["sys/", "image/", "json/", "compat/"],
    "lib/store/": ["sys/", "image/", "json/", "compat/", "store/"],
    # The stories and what stands beside them put everything together.
    "lib/": ["sys/", "tracee/", "image/", "memory/", "state/", "pager/", "gpu/", "compat/", "json/", "store/",
             "guest/"],
    # The program that the pager is: nothing but its main function.
    "pager/": ["pager/"],
    "gpu/": ["gpu/"],
    # What is outside the library sees its public headers and its own folder.
    "include/": [],
    "tools/": ["json/"],
    "bench/": ["support/"],  # of tests/
    "tests/targets/": [],
}
OWN_FOLDER_WITHOUT_PATH = ("lib/", "tools/", "bench/", "tests/targets/")

# What rooms of state/ share although it has code of its own.
SHARED_IN_STATE = {"lib/state/capture", "lib/state/descriptors/deleted", "lib/state/file_table", "lib/state/invocation", "lib/state/segments", "lib/state/signals", "lib/state/timeouts", "lib/state/terminal"}

# What calls all rooms, in each direction; contents is a part of rebuild.
STATE_ENTRANCES = {"lib/state/process", "lib/state/rebuild", "lib/state/contents"}

# Interfaces to other processes.  Headers that are wanted for their constants, as for calls made
# inside a tracee, do no harm; calls by ourselves do.
KERNEL_HEADER = re.compile(r"linux/(userfaultfd|fs|elf)\.h$|sys/(ptrace|uio|wait)\.h$")
KERNEL_ENTRY = re.compile(r"(?<!\w)::(ptrace|syscall|process_vm_\w+|waitpid|waitid|prctl)\s*\(")
# The file of an image is the one that lib/image may open, write and map by itself.
OWN_FILE = re.compile(r"lib/image/\w+_file\.cpp$")
ERRNO_TEST = re.compile(r"\berrno\s*[!=]=|[!=]=\s*errno\b|switch\s*\(\s*errno")

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
COMMENT_OR_STRING = re.compile(r'//.*|"(?:[^"\\]|\\.)*"')


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root)

    def files(self):
        """Paths of all sources, relative to the root."""
        for top in ("include", "lib", "pager", "gpu", "tools", "bench", "tests/targets"):
            for path in sorted((self.root / top).rglob("*")):
                if path.suffix in (".cpp", ".hpp", ".h", ".c"):
                    yield path.relative_to(self.root).as_posix()

    def broken_rules(self):
        for file in self.files():
            for number, line in enumerate((self.root / file).read_text().splitlines(), 1):
                reason = self.breaks_rule(file, line)
                if reason:
                    yield f"{file}:{number}: {reason}"

    def breaks_rule(self, file, line):
        include = INCLUDE.match(line)
        if not include:
            return breaks_kernel_rule(file, line)
        bracket, included = include.groups()
        if bracket == "<":
            return breaks_header_rule(file, included)
        return self.breaks_arrow(file, included)

    def breaks_arrow(self, file, included):
        if included.startswith("icecore/"):
            return None
        place = max((p for p in MAY_INCLUDE if file.startswith(p)), key=len)
        if place in OWN_FOLDER_WITHOUT_PATH and "/" not in included:
            return None
        if not any(included.startswith(beginning) for beginning in MAY_INCLUDE[place]):
            return f'{place} must not include "{included}"'
        if place == "lib/state/" and included.startswith("state/"):
            return self.breaks_state_rule(file, included)
        return None

    def breaks_state_rule(self, file, included):
        """Rooms do not know each other; what they share is a header without a .cpp beside it."""
        other = pathlib.PurePath("lib", included).with_suffix("")
        own = pathlib.PurePath(file).with_suffix("")
        if own == other or own.as_posix() in STATE_ENTRANCES:
            return None
        is_shared = not (self.root / f"{other}.cpp").exists() or other.as_posix() in SHARED_IN_STATE
        if is_shared and other.parent in own.parents:
            return None
        # The table of the rooms of descriptors knows them all.
        is_table = own.name in ("descriptors", "table")
        if is_table and other.parent == pathlib.PurePath("lib/state/descriptors"):
            return None
        return f'rooms of state/ must not know each other: "{included}"'


def breaks_header_rule(file, included):
    if file.startswith("lib/") and not file.startswith("lib/sys/") and KERNEL_HEADER.match(included):
        return f"only lib/sys includes <{included}>"
    if included.endswith(".hpp") and included.split("/")[0] in ("sys", "tracee", "image", "memory",
                                                               "state", "compat"):
        return f"own headers go in quotes: <{included}>"
    return None


def breaks_kernel_rule(file, line):
    # lib/guest is in other programs, where there is no lib/sys.
    if not file.startswith("lib/") or file.startswith(("lib/sys/", "lib/guest/")):
        return None
    code = COMMENT_OR_STRING.sub("", line)
    if ERRNO_TEST.search(code) and not OWN_FILE.match(file):
        return "only lib/sys tests errno"
    entry = KERNEL_ENTRY.search(code)
    if entry:
        return f"only lib/sys calls ::{entry.group(1)}"
    return None


def main():
    broken = list(Tree(sys.argv[1]).broken_rules())
    print("\n".join(broken) if broken else "every include follows the arrows")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
