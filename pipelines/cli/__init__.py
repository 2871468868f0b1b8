"""The command line: `brgm-med COMMAND`. Parsing only; the work is in the other rooms.

arguments.py has the kinds of values and the options that several commands share; scans.py, studies.py and priors.py the
commands. A command is a function that adds its options to a parser and returns what is called with the parsed options;
its docstring is its help. What a command needs is imported when it runs, so that `--help` and refusals are quick.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import warnings
from collections.abc import Sequence

from brgm_med._version import __version__
from brgm_med.errors import BrgmError, InputRefusedError
from brgm_med.pipelines.cli import priors, scans, studies
from brgm_med.pipelines.cli.arguments import Help, Parser, take_scans, talk_arguments
from brgm_med.pipelines.cli.completion import Install
from brgm_med.pipelines.console import say, speak, withhold
from brgm_med.staging import clear_scratch

COMMANDS = (
    *(scans.sr, scans.inpaint, scans.report, scans.degrade, scans.series, priors.train),
    *(studies.run, studies.evaluate, studies.study, priors.prior, scans.send, priors.doctor),
)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = Parser(
        prog="brgm-med",
        description="Bayesian reconstruction of medical scans with deep generative priors. For research, not for "
        "diagnosis.",
        epilog="Exit codes: 0 done, 2 usage, 3 input refused, 4 could not write, 5 prior or weights missing or "
        "damaged, 1 anything else.",
    )
    top.add_argument("--version", action="version", version=f"brgm-med {__version__}")
    text = "write completion for a shell to where it looks for it (default: $SHELL)"
    top.add_argument("--install-completion", action=Install, help=text)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        about = command.__doc__
        one = commands.add_parser(command.__name__, help=about, description=about, formatter_class=Help)
        one.set_defaults(handler=command(one), parser=one)
        talk_arguments(one)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors are one line on stderr, never a traceback."""
    # Warnings of libraries are not for users; BRGM_MED_DEBUG=1 shows them and tracebacks.
    debug = bool(os.environ.get("BRGM_MED_DEBUG"))
    if not debug:
        warnings.simplefilter("ignore")
    options = parser().parse_args(arguments)
    take_scans(options)
    speak(options.quiet, options.verbose)
    named = [getattr(options, name, None) or () for name in ("scan", "mask", "like")]
    hidden = [path for one in named for path in (one if isinstance(one, list | tuple) else [one])]
    withhold(hidden if getattr(options, "deidentify", False) else [])
    # Ended from outside is like Ctrl-C: whatever was being written is cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options.handler(options)
    except BrgmError as error:
        if debug:
            raise
        say(f"brgm-med: {error}", logging.ERROR)
        return error.exit_code
    except KeyboardInterrupt:
        say("brgm-med: interrupted", logging.ERROR)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        if debug or error.errno != errno.ENAMETOOLONG:
            return unexpected(error, debug)
        say(f"brgm-med: {error.filename}: no file can have so long a name; check the name", logging.ERROR)
        return InputRefusedError.exit_code
    except Exception as error:
        return unexpected(error, debug)
    finally:
        clear_scratch()
    return 0


def unexpected(error: Exception, debug: bool) -> int:
    """One line on stderr for a defect of ours, or the error itself to `debug` it."""
    if debug:
        raise error
    text = f"brgm-med: unexpected error, {type(error).__name__}: {error} (BRGM_MED_DEBUG=1 shows where)"
    say(text, logging.ERROR)
    return 1
