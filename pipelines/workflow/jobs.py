"""Independent jobs on an engine: each is a workflow that one process runs from end to end.

A graph of all nodes of a study costs Nipype time that grows with the square of their number. Here it gets a graph of
jobs, one a scan and `CHUNK` at a time, and a worker keeps what it has loaded.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from nipype import Node, Workflow
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, traits

from brgm_med.errors import BrgmError
from brgm_med.pipelines.workflow import engines
from brgm_med.processes import die_with_parent

engines.quiet()  # in a worker too, which imports this module before its first node

Job = Callable[[], list[str]]
"""Work that gives the names of nodes that crashed. To be sent to other processes it must be one that pickle knows."""

CHUNK = 200
"""Jobs in one graph, at least."""


class RunJob(SimpleInterface):
    """A job as a node, which crashes where a node of the job does."""

    _always_run = True

    class input_spec(BaseInterfaceInputSpec):
        job = traits.Any(mandatory=True, nohash=True, desc="the job")

    def _run_interface(self, runtime: Any) -> Any:
        die_with_parent()
        crashed = self.inputs.job()
        if crashed:
            raise BrgmError(f"crashed: {', '.join(crashed)}")
        return runtime


def run(
    jobs: Mapping[str, Job],
    work: Path,
    chosen: engines.Engine,
    *,
    n_procs: int = 1,
    mem_gb: float = 0.0,
    stop_on_first_crash: bool = False,
    report: Callable[[str], None],
) -> list[str]:
    """Run `jobs`, by name, on an engine, with the private folder `work`; returns the names of nodes, or of jobs in
    other processes, that crashed.

    `n_procs`, `mem_gb`: threads and memory of a job. `report` is called with a line for every job that has ended. With
    `stop_on_first_crash` no job is begun after one.
    """
    crashed: list[str] = []
    if chosen[0] == "Linear":
        for name, job in jobs.items():
            nodes = job()
            report(f"{name}: {'crashed' if nodes else 'done'}")
            crashed += nodes
            if crashed and stop_on_first_crash:
                break
        return crashed
    size = max(CHUNK, 4 * int(chosen[1].get("n_procs", 1)), 4 * int(chosen[1].get("max_jobs", 1)))
    for chunk in chunks(jobs, size):
        graph = Workflow(name="jobs")
        for name, job in chunk.items():
            graph.add_nodes([Node(RunJob(job=job), name=name, n_procs=n_procs, mem_gb=mem_gb)])
        with frozen():
            crashed += engines.run(graph, work, chosen, stop_on_first_crash=stop_on_first_crash, report=report)
        if crashed and stop_on_first_crash:
            break
    return crashed


@contextmanager
def frozen() -> Iterator[None]:
    """All that is loaded is no garbage: Nipype collects that before it sends jobs, which takes longer than a job."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def chunks(jobs: Mapping[str, Job], size: int) -> Iterator[dict[str, Job]]:
    """The jobs, so many at a time."""
    items = iter(jobs.items())
    while chunk := dict(islice(items, size)):
        yield chunk
