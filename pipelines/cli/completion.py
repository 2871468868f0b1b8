"""Completion of `brgm-med` in bash: a static script, made of the parser."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brgm_med.errors import BrgmError, CannotWriteError

HEAD = """# bash completion of brgm-med, written by brgm-med --install-completion
_brgm_med() {
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""
    case "${COMP_WORDS[1]:-}:$before" in
"""
MIDDLE = """    esac
    if [ -z "$words" ]; then
        case "${COMP_WORDS[1]:-}" in
"""
TAIL = """        esac
    fi
    if [ "$COMP_CWORD" -eq 1 ]; then words="%s"; fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _brgm_med brgm-med
"""


def script(parser: argparse.ArgumentParser) -> str:
    """The script: commands, their options, and the values of those that have choices; file names everywhere else."""
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    values, options = "", ""
    for name, command in commands.choices.items():
        words = [o for action in command._actions for o in action.option_strings]
        for action in command._actions:
            if action.choices is None:
                continue
            choices = " ".join(str(c) for c in action.choices)
            if not action.option_strings:
                words += [str(c) for c in action.choices]
            for option in action.option_strings:
                values += f'        {name}:{option}) words="{choices}" ;;\n'
        options += f'            {name}) words="{" ".join(words)}" ;;\n'
    own = [o for action in parser._actions for o in action.option_strings]
    return HEAD + values + MIDDLE + options + TAIL % " ".join([*commands.choices, *own])


class Install(argparse.Action):
    """An option that installs the completion of its own parser, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            print(f"wrote {install(parser)}; it works in new shells that have bash-completion")
        except BrgmError as error:
            parser.exit(error.exit_code, f"brgm-med: {error}\n")
        parser.exit()


def install(parser: argparse.ArgumentParser) -> Path:
    """Write the script to where bash-completion looks for a user's own, and return that. Raises CannotWriteError."""
    from brgm_med.files import replacing  # here, so that --help is quick

    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    path = Path(data) / "bash-completion" / "completions" / "brgm-med"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{path.parent}: cannot be made ({error.strerror}); set XDG_DATA_HOME") from error
    with replacing(path, force=True) as temporary:
        temporary.write_text(script(parser))
    return path
