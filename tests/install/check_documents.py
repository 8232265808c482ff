#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that the manual page and the bash completion know every command and option.

    check_documents.py ICECORE SOURCE_DIRECTORY

What there is, `icecore help` says.
"""

import pathlib
import re
import subprocess
import sys


def help_of(icecore, *command):
    return subprocess.run([icecore, "help", *command], check=True, capture_output=True, text=True).stdout


def commands(icecore):
    listed = help_of(icecore).split("Subcommands:")[1]
    return re.findall(r"^  (\w+) ", listed, re.MULTILINE)


def options(icecore, command):
    """Names of the options, as "-o" and "--output"."""
    lines = re.findall(r"^  (-\S+)", help_of(icecore, command), re.MULTILINE)
    return {name for line in lines for name in line.split(",")}


def manual_section(manual, command):
    return re.split(rf"\.Ss icecore {command}[ \n]", manual)[1].split("\n.Ss ")[0].split("\n.Sh ")[0]


def in_manual(section, option):
    # mdoc writes --json as "Fl -json".
    return re.search(rf"Fl {re.escape(option[1:])}(?![\w-])", section)


def completed(completion, command, option):
    """What bash offers for `icecore COMMAND OPTION<TAB>`."""
    script = f"""
        _init_completion() {{ cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
                             words=("${{COMP_WORDS[@]}}") cword=$COMP_CWORD; }}
        source {completion}
        COMP_WORDS=(icecore {command} {option})
        COMP_CWORD=2
        _icecore
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    return subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.split()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    icecore, source = sys.argv[1], pathlib.Path(sys.argv[2])
    manual = (source / "docs/icecore.1").read_text()
    completion = source / "completions/icecore"
    wrong = []
    count = 0
    for command in commands(icecore):
        section = manual_section(manual, command)
        for option in sorted(options(icecore, command)):
            count += 1
            if option not in ("-h", "--help") and not in_manual(section, option):
                wrong.append(f"icecore.1 does not explain {command} {option}")
            if option not in completed(completion, command, option):
                wrong.append(f"the completion does not know {command} {option}")
    print("\n".join(wrong) if wrong else f"all {count} options are documented")
    return 1 if wrong or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
