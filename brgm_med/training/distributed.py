"""Data parallel training: every process takes its share of each batch, and all hold the same weights.

Every process draws the random numbers of the whole batch from the same seed and keeps those of its own images: of
`world()` processes, process r takes the images r, r + world(), ... With losses that are means over the batch and
gradients averaged over the processes, an update is then that of one process with the whole batch. Groups for the
minibatch deviation (images i, i + n / 4, ... of n) stay whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from brgm_med.errors import UsageError


def rank() -> int:
    """The number of this process, 0 for the one that writes files and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """This process's own GPU (numbered by LOCAL_RANK, which torchrun sets) where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started (NCCL where each has a GPU, else Gloo) and leave them at the end.

    Nothing happens in a process that was started alone, or inside another such context.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    own_gpu = torch.cuda.is_available() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
    own = device() if own_gpu else None
    if own is not None:
        torch.cuda.set_device(own)
    # The others wait while process 0 prepares data or measures a snapshot.
    dist.init_process_group("nccl" if own_gpu else "gloo", timeout=timedelta(hours=12), device_id=own)
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(count: int, group: int = 1) -> int:
    """The number of `count` images, in groups of `group`, that are this process's.

    Raises UsageError where they cannot be shared out evenly.
    """
    if world() > 1 and count % (world() * group):
        raise UsageError(f"{count} images (in groups of {group}) cannot be shared by {world()} processes")
    return count // world()


class WholeBatch(TorchFunctionMode):
    """Context in which random tensors are drawn for the whole batch, along dimension 0, and this share of them kept."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.rand, torch.randn, torch.randint, torch.randn_like, torch.rand_like):
            return func(*args, **kwargs)
        if func in (torch.randn_like, torch.rand_like):
            like = args[0]
            options = {"dtype": like.dtype, "device": like.device} | kwargs
            func, head, size = (torch.randn if func is torch.randn_like else torch.rand), (), tuple(like.shape)
        elif func is torch.randint:
            options, head, size = kwargs, args[:-1], tuple(args[-1])
        else:
            options, head = kwargs, ()
            size = tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args
        whole = (size[0] * world(), *size[1:])
        return func(*head, *((whole,) if head else whole), **options)[rank() :: world()]


def shared_draws() -> AbstractContextManager[object]:
    """`WholeBatch` where there are several processes, and nothing that costs time where there is one."""
    return WholeBatch() if world() > 1 else nullcontext()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor, in place, by its mean over all processes: one all-reduce of all of them together."""
    listed = list(tensors)
    if world() == 1 or not listed:
        return
    flat = torch.cat([t.reshape(-1) for t in listed])
    dist.all_reduce(flat)
    flat /= world()
    for tensor, mean in zip(listed, flat.split([t.numel() for t in listed]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of a network's parameters over all processes."""
    average(p.grad for p in module.parameters() if p.grad is not None)


def floats(values: dict[str, Tensor]) -> dict[str, float]:
    """Scalars, each its mean over all processes."""
    if not values:
        return {}
    together = torch.stack([v.detach().float() for v in values.values()])
    average([together])
    return dict(zip(values, together.tolist(), strict=True))


def anyone(flag: bool, device: torch.device) -> bool:
    """True where `flag` holds in any process. All processes must ask."""
    if world() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)
