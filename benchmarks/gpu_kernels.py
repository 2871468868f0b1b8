"""Step (a) of benchmarks/gpu.py: every CUDA kernel against float64 on the processor.

Operations, dtypes, orders in memory and shapes are those of tests/ops_cases.py, in an order that leaves as large a part
of each operation's cases undone as of the others' where time runs out. Without a GPU the kernels are compiled by the
host's g++ and their threads run one after the other: that checks the arithmetic, and the results say so.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import patch

import torch

from brgm_med.ops import fir_filter, layout, nvrtc, upfirdn2d, upfirdn2d_cuda
from gpu_step import Step, arguments, device, machine, say
from tests import host_compiler
from tests.ops_cases import (
    ACTS,
    BIAS_ACT_SHAPES,
    CLAMPS,
    DEVICE_SHAPE,
    DTYPES,
    EPILOGUE_SHAPES,
    NOISES,
    ORDERS,
    RESAMPLED_SHAPES,
    RESAMPLINGS,
    ROUNDING,
    Comparison,
    bias_act_comparisons,
    definition,
    epilogue_comparison,
    epilogue_derivatives,
    exactly,
    filters,
    images,
    resampling_comparisons,
)

Case = Callable[[], Iterable[Comparison]]
SMALL = 24
"""Cases that compute-sanitizer watches."""
SANITIZED = 0.3
"""Part of the limit that is left to it."""


def resampled(at: str, dtype: torch.dtype, order: str, case: Any, shape: tuple[int, ...]) -> Iterator[Comparison]:
    x = images(shape, dtype, order).to(at)
    return resampling_comparisons(upfirdn2d, x, filters(case[3])[0], case, ROUNDING[dtype], order)


def epilogue_comparisons(*how: Any) -> list[Comparison]:
    return [epilogue_comparison(*how)]


def wide(case: Case) -> Iterator[Comparison]:
    """A case with indices of 64 bits."""
    with (
        patch.object(layout, "index_type", lambda _: "long long"),
        patch.object(upfirdn2d_cuda, "index_type", lambda *_: "long long"),
    ):
        for comparison in case():
            yield comparison._replace(name=f"{comparison.name} 64-bit")


def huge() -> Iterator[Comparison]:
    """upfirdn2d of more than 2^31 elements, looked at in the last corner."""
    x = torch.zeros(3, 1, 26755, 26755, dtype=torch.bfloat16, device="cuda")
    corner = images((1, 1, 40, 50), torch.bfloat16)
    x[2:, :, -40:, -50:] = corner.to("cuda")
    y = upfirdn2d(x, fir_filter(), padding=(1, 2, 1, 2))[2:, :, -40:, -50:]
    exact = definition(exactly(corner), fir_filter(), 1, 1, (1, 2, 1, 2), False, 1.0)
    yield Comparison("upfirdn2d forward bfloat16 more than 2^31 elements", y, exact, 1e-2, torch.bfloat16)


def cases(at: str) -> list[Case]:
    """All comparisons on device `at`, mixed."""
    more = [DEVICE_SHAPE] if at == "cuda" else []
    acts = [
        partial(bias_act_comparisons, at, act, clamp, dtype, shape, order, shape[0] != 3)
        for act, clamp, dtype, shape, order in product(ACTS, CLAMPS, DTYPES, [*BIAS_ACT_SHAPES, *more], ORDERS)
    ]
    hows = list(product([at], [*EPILOGUE_SHAPES, *more], NOISES, ORDERS, DTYPES))
    epilogues, derivatives = ([partial(f, *how) for how in hows] for f in (epilogue_comparisons, epilogue_derivatives))
    resamplings = [
        partial(resampled, at, *how) for how in product(DTYPES, ORDERS, RESAMPLINGS, [*RESAMPLED_SHAPES, *more])
    ]
    groups: list[list[Case]] = []
    for group in (epilogues, acts, resamplings, derivatives):
        random.Random(0).shuffle(group)
        groups.append([*group, *(partial(wide, case) for case in group[:20])])
    ordered = sorted((i / len(g), n, i) for n, g in enumerate(groups) for i in range(len(g)))
    mixed = [groups[n][i] for _, n, i in ordered]
    enough = at == "cuda" and torch.cuda.get_device_properties(0).total_memory > 24 * 2**30
    return [*mixed, huge] if enough else mixed


@contextmanager
def kernels(at: torch.device, launches: dict[str, int]) -> Iterator[None]:
    """Kernels run where they can, and `launches` counts them by source."""
    real = nvrtc.launch if at.type == "cuda" else host_compiler.launch

    def counted(kernel: nvrtc.Kernel, *rest: Any) -> bool:
        launched = real(kernel, *rest)
        launches[kernel.source] = launches.get(kernel.source, 0) + launched
        return launched

    with ExitStack() as patches:
        patches.enter_context(patch.object(nvrtc, "launch", counted))
        if at.type == "cpu":
            module = sys.modules["brgm_med.ops.upfirdn2d"]
            patches.enter_context(patch.object(module, "resample", upfirdn2d_cuda.launched))
        yield


def compare(step: Step, chosen: list[Case], until: float) -> None:
    """Run the cases and note, for each kernel and dtype, comparisons, the largest error and which failed."""
    at = device()
    launches: dict[str, int] = {}
    rows: dict[str, dict[str, Any]] = {}
    step.results |= {"cases": len(chosen), "done": 0, "launches": launches, "rows": rows}
    noted = step.left()
    with kernels(at, launches):
        for number, case in enumerate(chosen, 1):
            if step.left() < until:
                break
            try:
                for comparison in case():
                    note(rows, comparison.name, comparison.error())
            except Exception as error:  # a kernel that does not compile or run is a result, too
                text = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                note(rows, f"{case_name(case)}: {type(error).__name__}: {text}", float("inf"))
                if dead(at):
                    step.results["stopped"] = f"the device gave up: {text}"
                    break
            step.results["done"] = number
            if noted - step.left() > 2 or number == len(chosen):
                noted = step.left()
                failed = sum(len(row["failures"]) for row in rows.values())
                say(f"(a) {number} of {len(chosen)} cases, {failed} failures, {sum(launches.values())} launches")
                step.save()
    step.results["refusal"] = nvrtc.refusal() if at.type == "cuda" else None
    step.save()


def case_name(case: Any) -> str:
    inner = case.args[0] if case.func is wide else case
    return f"{case.func.__name__} {' '.join(map(str, inner.args))}" if isinstance(case, partial) else case.__name__


def note(rows: dict[str, dict[str, Any]], name: str, error: float) -> None:
    key = " ".join(name.split()[:3])
    row = rows.setdefault(key, {"comparisons": 0, "largest": 0.0, "failures": []})
    row["comparisons"] += 1
    row["largest"] = max(row["largest"], min(error, 1e30))
    if not error <= 1:
        row["failures"].append({"case": name, "error": min(error, 1e30)})


def dead(at: torch.device) -> bool:
    """Whether the device answers no more."""
    try:
        if at.type == "cuda":
            torch.cuda.synchronize(at)
    except RuntimeError:
        return True
    return False


def sanitize(step: Step) -> None:
    """`compute-sanitizer` (memcheck) over the first cases, where the program exists and the device lets it."""
    program = shutil.which("compute-sanitizer")
    if device().type != "cuda" or program is None:
        step.results["sanitizer"] = f"not run: no {'GPU' if device().type != 'cuda' else 'compute-sanitizer'}"
        return
    results, limit = step.path.with_name("sanitized.json"), max(step.left() - 3, 5)
    own = [sys.executable, __file__, "--results", str(results), "--seconds", str(limit), "--small"]
    command = [program, "--tool", "memcheck", "--error-exitcode", "86", *own]
    say(f"(a) compute-sanitizer over {SMALL} cases, {limit:.0f} s at most")
    try:
        # Every tensor in memory of its own, so that reading beyond one is seen.
        environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        step.results["sanitizer"] = f"not finished in {limit:.0f} s"
        return
    last = ([line for line in done.stdout.splitlines() if line.startswith("=")] or [done.stderr[-200:]])[-3:]
    verdict = {0: "no error", 86: "ERRORS"}.get(done.returncode, f"could not run (exit code {done.returncode})")
    step.results["sanitizer"] = f"memcheck, {SMALL} cases: {verdict}; {' '.join(last)}"


def page(results: dict[str, Any]) -> list[str]:
    """The step's part of the page."""
    lines = [
        f"{results.get('how', 'nothing ran')}. {results.get('done', 0)} of {results.get('cases', 0)} cases were run."
    ]
    lines += [f"Launches: {', '.join(f'{k} {v}' for k, v in results.get('launches', {}).items()) or 'none'}."]
    lines += [f"**{key}**: {results[key]}." for key in ("refusal", "stopped", "sanitizer") if results.get(key)]
    lines += ["", "| kernel, dtype | comparisons | largest error, of what is allowed | failures |", "|---|---|---|---|"]
    rows = sorted(results.get("rows", {}).items())
    lines += [f"| {k} | {r['comparisons']} | {r['largest']:.3g} | {len(r['failures'])} |" for k, r in rows]
    failures = [f for _, row in rows for f in row["failures"]]
    lines += ["", f"Failures: {len(failures)}."]
    return lines + [f"- {f['case']}: {f['error']:.3g}" for f in failures[:40]]


def main() -> None:
    options = arguments(__doc__, [("--small", {"action": "store_true"})])
    step, at = Step(options.results, options.seconds, begun=options.since), device()
    step.results |= machine()
    if at.type == "cuda":
        step.results["how"] = "The CUDA kernels, compiled by NVRTC, on the GPU"
    elif host_compiler.available():
        step.results["how"] = "NO GPU: the kernels' sources compiled by g++, threads one after the other on the CPU"
    else:
        step.results["how"] = "NOT RUN: no GPU and no g++"
        step.save()
        return
    chosen = cases(at.type)
    sanitized = at.type == "cuda" and not options.small
    compare(step, chosen[:SMALL] if options.small else chosen, SANITIZED * options.seconds if sanitized else 0.0)
    if not options.small:
        sanitize(step)
    step.save()


if __name__ == "__main__":
    main()
