#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what a library exports with the list beside this file.

    check_exports.py LIBRARY [--update]

A name that disappears from the list breaks programs that are linked with the library.
"""

import difflib
import pathlib
import subprocess
import sys

LIST = pathlib.Path(__file__).parent / "exports.txt"


def exported(library):
    nm = subprocess.run(["nm", "-DC", "--defined-only", library], check=True, capture_output=True, text=True)
    # "0000000000001234 T icecore::snapshot(…)"; A is the name of the version itself.
    symbols = [line.split(" ", 2)[1:] for line in nm.stdout.splitlines()]
    return sorted({name.split("@@")[0] for kind, name in symbols if kind != "A"})


def main():
    found = exported(sys.argv[1])
    if "--update" in sys.argv:
        LIST.write_text("\n".join(found) + "\n")
        return 0
    expected = LIST.read_text().splitlines()
    difference = list(difflib.unified_diff(expected, found, str(LIST), sys.argv[1], lineterm="", n=0))
    print("\n".join(difference) if difference else f"exports the {len(found)} symbols of {LIST.name}")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
