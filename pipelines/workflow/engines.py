"""Engines that run the nodes of a workflow: this process, several processes, or a cluster."""

from __future__ import annotations

import getpass
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.errors import CannotWriteError, UsageError
from brgm_med.processes import ending_children

if TYPE_CHECKING:
    from nipype import Workflow

Engine = tuple[str, dict[str, Any]]
"""The name of a Nipype plugin, and its arguments."""

MEM_GB = {
    "convert": 0.5,
    "preprocess": 1.5,
    "slice": 1.0,
    "reconstruct": 3.0,
    "train": 4.0,
    "report": 3.0,
    "dicom": 0.5,
    "write_back": 0.2,
}
"""Memory of a node at most, for engines that share it out. A head of 1 x 1 x 4 mm took 2.1 GB to reconstruct and 2.5 to
report on, 256 x 256 x 30 voxels of 0.8 x 0.8 x 5 mm by their own prior 2.4; the others are estimates."""


def engine(nprocs: int = 1, mem_gb: float | None = None, plugin: Path | None = None) -> Engine:
    """Linear for one process, MultiProc for several, or the plugin that a JSON file names:

        {"plugin": "SLURM", "plugin_args": {"sbatch_args": "--mem=4G", "max_jobs": 20}}

    SLURM, SGE and PBS are Nipype's own plugins. Raises UsageError for a file that says something else, and for less
    memory than a node takes.
    """
    if plugin is not None:
        return from_file(plugin)
    least = max(MEM_GB.values())
    if mem_gb is not None and mem_gb < least:
        raise UsageError(f"--mem-gb {mem_gb:g}: a node may take {least:g} GB; give at least that")
    if nprocs == 1:
        return "Linear", {}
    arguments: dict[str, Any] = {"n_procs": nprocs, "raise_insufficient": False, "mp_context": "forkserver"}
    return "MultiProc", arguments | ({} if mem_gb is None else {"memory_gb": mem_gb})


def from_file(path: Path) -> Engine:
    """The engine that a JSON file names, see `engine`."""
    try:
        content = json.loads(path.read_text())
        name, arguments = content["plugin"], content.get("plugin_args", {})
        good = isinstance(name, str) and isinstance(arguments, dict) and content.keys() <= {"plugin", "plugin_args"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise UsageError(f'{path}: is no JSON file such as {{"plugin": "SLURM", "plugin_args": {{"max_jobs": 20}}}}')
    if name == "SLURMGraph":
        raise UsageError(f"{path}: SLURMGraph returns before its jobs end; use SLURM")
    from nipype.pipeline import plugins

    if not hasattr(plugins, f"{name}Plugin"):
        raise UsageError(f"{path}: Nipype has no plugin {name!r}; use SLURM, SGE, PBS, MultiProc or Linear")
    return name, arguments


def limit_threads(threads: int) -> None:
    """Numerical libraries that are loaded from now on, here and in processes started here, use so many threads.

    Sums depend on how many there are; results are bit-equal on all engines because this is the same on all.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("LOGNAME", getpass.getuser())  # Nipype's cluster plugins name jobs after it


def private_folder(path: Path) -> None:
    """Make `path` a folder that only its owner may enter: Nipype runs what a pickle planted in there says.

    Raises CannotWriteError where it is a link, not a folder, or somebody else's.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise CannotWriteError(f"{path}: is no folder; choose another work directory")
        if status.st_uid != os.geteuid():
            raise CannotWriteError(f"{path}: belongs to another user, who could plant code; choose another one")
        if stat.S_IMODE(status.st_mode) & 0o022:
            inside = next(path.iterdir(), None)
            if inside is not None:
                raise CannotWriteError(
                    f"{path}: others could write into it, and it is not empty; choose a new work directory"
                )
        path.chmod(0o700)
    except OSError as error:
        raise CannotWriteError(f"{path}: cannot be the work directory ({error.strerror}); choose another") from error


def quiet() -> None:
    """Keep Nipype, in this process, from telling of every node what it is about to do."""
    from nipype import config, logging

    config.update_config({"logging": {"workflow_level": "CRITICAL", "interface_level": "CRITICAL"}})
    logging.update_logging(config)


class Watch:
    """Nipype tells it what becomes of every node. Nodes that are pickled carry an empty one."""

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self.report = report
        self.crashed: list[str] = []

    def __reduce__(self) -> tuple[type[Watch], tuple[()]]:
        return Watch, ()

    def __call__(self, node: Any, status: str) -> None:
        name = node.fullname.split(".", 1)[-1]
        if status == "exception":
            self.crashed.append(name)
        if self.report is not None and status != "start" and node.name not in ("inputnode", "outputnode"):
            self.report(f"{name}: {'crashed' if status == 'exception' else 'done'}")


def run(
    workflow: Workflow,
    work: Path,
    chosen: Engine = ("Linear", {}),
    *,
    stop_on_first_crash: bool = False,
    report: Callable[[str], None] | None = None,
) -> list[str]:
    """Run `workflow` in the private folder `work`; returns the names of nodes that crashed, in order.

    Nodes are cached by the content of their inputs, so that a run that was cut short goes on where it stopped. A crash
    leaves a text file in `work`/crash and stops only what depends on it. `report` is called with a line for every node
    that has ended.
    """
    private_folder(work)
    crashes = work / "crash"
    workflow.base_dir = str(work)
    execution = {
        "hash_method": "content",
        "crashfile_format": "txt",
        "crashdump_dir": str(crashes),
        "stop_on_first_crash": stop_on_first_crash,
        "remove_unnecessary_outputs": False,
        "create_report": False,
        "poll_sleep_duration": 0.05 if chosen[0] == "MultiProc" else 2,
        "job_finished_timeout": 60,
    }
    workflow.config["execution"] = {key: str(value) for key, value in execution.items()}
    quiet()
    watch = Watch(report)
    name, arguments = chosen
    try:
        with ending_children():
            workflow.run(plugin=name, plugin_args={**arguments, "status_callback": watch})
    except Exception:
        if not watch.crashed:  # what a node raised is in its crash file, and told by its name
            raise
    return watch.crashed
