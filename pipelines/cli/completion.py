"""Completion of `brgm-med` in bash, zsh and fish: scripts that shtab makes of the parser."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brgm_med.errors import BrgmError, CannotWriteError, UsageError

SHELLS = ("bash", "zsh", "fish")
AFTERWARDS = {
    "bash": "it works in new shells that have bash-completion",
    "zsh": "it works in new shells whose fpath has that folder before compinit: fpath=(FOLDER $fpath) in ~/.zshrc",
    "fish": "it works in new shells",
}


class Install(argparse.Action):
    """An option that installs the completion of its own parser for a shell (by default $SHELL), and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", choices=SHELLS, **options)

    def __call__(self, parser: argparse.ArgumentParser, _namespace: argparse.Namespace, shell: Any, *_: Any) -> None:
        try:
            named = shell or Path(os.environ.get("SHELL", "bash")).name
            path = install(parser, named)
        except BrgmError as error:
            parser.exit(error.exit_code, f"brgm-med: {error}\n")
        print(f"wrote {path}; {AFTERWARDS[named]}")
        parser.exit()


def install(parser: argparse.ArgumentParser, shell: str) -> Path:
    """Write the script to where a shell looks for a user's own, and return that.

    Raises UsageError for a shell of another name, and CannotWriteError.
    """
    if shell not in SHELLS:
        raise UsageError(f"{shell}: there is completion for {', '.join(SHELLS)}; name one after --install-completion")
    import shtab

    from brgm_med.files import replacing  # here, so that --help is quick

    path = place(shell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        variable = "XDG_CONFIG_HOME" if shell == "fish" else "XDG_DATA_HOME"
        raise CannotWriteError(f"{path.parent}: cannot be made ({error.strerror}); set {variable}") from error
    with replacing(path, force=True) as temporary:
        temporary.write_text(shtab.complete(parser, shell=shell))
    return path


def place(shell: str) -> Path:
    """The file of a user's own completion of brgm-med."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / "brgm-med",
        "zsh": data / "zsh" / "site-functions" / "_brgm-med",
        "fish": config / "fish" / "completions" / "brgm-med.fish",
    }[shell]
