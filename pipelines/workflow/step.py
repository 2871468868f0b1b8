"""A step as a Nipype interface: a shell without logic, which hashes its inputs by content, folders too.

A scan that is refused ends a node with InputRefusedError. With `keep_going` it does not: the node's outputs are then a
small file NAME_refused.json that says why, every later interface hands it on, and the other scans of a study go on.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, SimpleInterface, isdefined, traits

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.files import digest
from brgm_med.pipelines.workflow.refusals import is_refusal, write_refusal
from brgm_med.processes import die_with_parent
from brgm_med.staging import clear_scratch, scratch_beside
from brgm_med.transforms.formats import stem
from brgm_med.transforms.formats.beside import sidecar_of

LOG = "brgm-med.log"
"""File in a step's working folder that takes all it prints."""


def content_of(path: str) -> str:
    """A hash of a folder's content: of a prior its identity, else names and contents of all files in it."""
    identity = Path(path) / "configs" / "metadata.json"
    if identity.is_file():
        return digest(identity)
    hashed = hashlib.sha256()
    for file in sorted(p for p in Path(path).rglob("*") if p.is_file()):
        hashed.update(f"{file.relative_to(path).as_posix()} {digest(file)}\n".encode())
    return hashed.hexdigest()


class InputSpec(BaseInterfaceInputSpec):
    """The inputs of every step."""

    keep_going = traits.Bool(False, usedefault=True, desc="a refused scan gives a refusal instead of an error")
    software = traits.Str(
        usedefault=True,
        desc="a newer version does its work anew; so does one that calls these classes by another module's name, as "
        "the pickled results of an older one do",
    )

    def _software_default(self) -> str:
        return f"{__version__} {type(self).__module__}"

    def _get_sorteddict(
        self, objekt: Any, dictwithhash: bool = False, hash_method: str | None = None, hash_files: bool = True
    ) -> Any:
        """Inputs sorted and hashed as Nipype's, and a folder (given by its whole path) by what it holds."""
        if hash_files and isinstance(objekt, str) and os.path.isabs(objekt) and os.path.isdir(objekt):
            content = content_of(objekt)
            return (objekt, content) if dictwithhash else content
        return super()._get_sorteddict(objekt, dictwithhash, hash_method, hash_files)


class ScanSpec(InputSpec):
    """The inputs of a step that reads a scan's acquisition from the JSON file beside it."""

    def _get_sorteddict(
        self, objekt: Any, dictwithhash: bool = False, hash_method: str | None = None, hash_files: bool = True
    ) -> Any:
        """As of all inputs, and a scan (given by its whole path) counts together with the JSON file beside it."""
        own = super()._get_sorteddict(objekt, dictwithhash, hash_method, hash_files)
        if not (hash_files and isinstance(objekt, str) and os.path.isabs(objekt) and os.path.exists(objekt)):
            return own
        beside = sidecar_of(Path(objekt), stem(Path(objekt)))
        if beside == Path(objekt) or not beside.is_file():
            return own
        return (*own, digest(beside)) if dictwithhash else f"{own} {digest(beside)}"


class Step(SimpleInterface):
    """An interface whose `work(cwd)` calls a plain function and returns its outputs by name, files as paths.

    `refusable` names the input that may be a refusal instead of a file; empty: the step deals with those itself.
    """

    refusable = "scan"

    def work(self, cwd: Path) -> dict[str, Any]:
        raise NotImplementedError

    def arguments(self, *names: str) -> dict[str, Any]:
        """The inputs `names` that are set, and not empty, as keyword arguments; files and folders as paths."""
        values = {name: getattr(self.inputs, name) for name in names}
        values = {name: value for name, value in values.items() if isdefined(value) and value not in ("", {})}
        files = {name for name in values if isinstance(self.inputs.trait(name).trait_type, (File, Directory))}
        return {name: Path(value) if name in files else value for name, value in values.items()}

    def _run_interface(self, runtime: Any) -> Any:
        die_with_parent()
        scratch_beside(Path(runtime.cwd) / LOG)
        cwd, scan = Path(runtime.cwd), getattr(self.inputs, self.refusable) if self.refusable else None
        if isinstance(scan, str) and is_refusal(scan):
            self._refuse(Path(scan))
            return runtime
        try:
            with open(cwd / LOG, "w") as log, redirect_stdout(log), redirect_stderr(log):
                outputs = self.work(cwd)
        except InputRefusedError as error:
            if not self.inputs.keep_going or not isinstance(scan, str):
                raise
            self._refuse(write_refusal(cwd, Path(scan), type(self).__name__.lower(), error))
            return runtime
        finally:
            clear_scratch()
        for name, value in outputs.items():
            self._results[name] = [str(one) for one in value] if isinstance(value, list) else str(value)
        return runtime

    def _refuse(self, refusal: Path) -> None:
        self._results.update(dict.fromkeys(self.output_spec().copyable_trait_names(), str(refusal)))
