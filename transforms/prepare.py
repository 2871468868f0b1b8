"""A folder of heads -> the normalised coronal stacks that a prior is trained on, each kept in a file of its own."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, Transform
from torch import Tensor

from brgm_med.errors import BrgmError, InputRefusedError, PriorError
from brgm_med.files import digest, replacing
from brgm_med.processes import die_with_parent, share
from brgm_med.transforms.formats import endings, for_reading
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import estimate
from brgm_med.transforms.load import LoadScan
from brgm_med.transforms.meta import grid_of, like
from brgm_med.transforms.register import resample_cubic, rigid_pose
from brgm_med.transforms.slices import CoronalSlices
from brgm_med.transforms.template import Template

VERSION = b"1"
"""Part of every kept file's key: to be raised when what is done to a head changes."""


def heads_in(folder: Path, without: Path | None = None) -> list[Path]:
    """The scans in `folder` and below, sorted by name, but for those in the folder `without`.

    Raises InputRefusedError where there are none.
    """
    if not folder.is_dir():
        raise InputRefusedError(f"{folder}: is not a folder; give a folder of NIfTI heads")
    found = [p for p in folder.rglob("*") if p.name.endswith(endings("volume")) and p.is_file()]
    if without is not None:
        found = [p for p in found if not p.resolve().is_relative_to(without.resolve())]
    if not found:
        raise InputRefusedError(
            f"{folder}: holds no scan ({', '.join(endings('volume'))}); give a folder of NIfTI heads"
        )
    return sorted(found, key=lambda p: (p.name, p.as_posix()))


class Heads(Sequence[tuple[Tensor, Grid]]):
    """Scans as ([1, X, Y, Z] float32, grid), each read when asked for. Raises InputRefusedError as the reader does."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Grid]:  # type: ignore[override]
        path = self.paths[index]
        scan = for_reading(path).read(path)
        return torch.from_numpy(scan.array)[None], Grid(scan.header.shape, scan.affine)


class RegisterNormalised(Transform):
    """MetaTensor [1, X, Y, Z] of a head -> the same on the template's box, air -1 and the mean of the brain 0.

    `RegisterRigid` and `NormaliseIntensity` in one, because the brain reaches out of the box: its mean is taken before
    the box is cut out, as it is for a scan that is to be reconstructed. Raises InputRefusedError as those two do.
    """

    def __init__(self, template: Template) -> None:
        self.template = template

    def __call__(self, image: MetaTensor) -> MetaTensor:
        values, grid = image.as_tensor(), grid_of(image)
        pose, correlation = rigid_pose(values, grid, self.template)
        normalisation = estimate(values, grid, self.template, pose)
        registered = resample_cubic(values, grid, self.template.box, pose, normalisation.low)
        box = self.template.box.affine
        return like(
            image,
            normalisation.forward(registered),
            box,
            pose=torch.from_numpy(pose),
            registration_correlation=correlation,
        )


class Packed(Transform):
    """A registered stack -> what is kept of it: `stack` [Y, 1, Z, X] float16, `pose` [4, 4] float64, `correlation`."""

    def __call__(self, stack: MetaTensor) -> dict[str, Tensor]:
        return {
            "stack": stack.as_tensor().half().contiguous(),
            "pose": stack.meta["pose"],
            "correlation": torch.tensor(stack.meta["registration_correlation"], dtype=torch.float64),
        }


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, hexadecimal."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()


def read_kept(file: Path) -> dict[str, Tensor] | None:
    """What `PreparedHeads` kept in `file`; None when that is damaged (torch alone does not see a turned bit)."""
    try:
        held = torch.load(file, weights_only=True)
        return held["head"] if fingerprint(held["head"]) == held["sha256"] else None
    except Exception:  # a damaged archive fails in as many ways as pickle, zip and torch have
        return None


class PreparedHeads(PersistentDataset):
    """Heads as `Packed` leaves them, each kept in a file of `cache` under the hash of scan, template and version.

    A file is there whole or not at all, and holds plain tensors and their SHA-256; a damaged one is made anew, and
    `report` is told. Raises InputRefusedError, naming the scan, for one that cannot be read or does not register.
    """

    def __init__(
        self, paths: Sequence[Path], template: Template, cache: Path, report: Callable[[str], None] = print
    ) -> None:
        numbers = {"image": template.image, "mask": template.mask}
        numbers |= {name: torch.from_numpy(g.affine) for name, g in (("grid", template.grid), ("box", template.box))}
        self.template = f"{fingerprint(numbers)} {template.box.shape}"
        self.report = report
        chain = Compose([LoadScan(), RegisterNormalised(template), CoronalSlices(), Packed()])
        super().__init__([str(p) for p in paths], chain, cache, hash_func=self.key)
        self.files = [cache / f"{self.key(path).decode()}.pt" for path in self.data]

    def key(self, path: str) -> bytes:
        """What the file of the head at `path` is called."""
        try:
            content = digest(Path(path))
        except OSError as error:
            raise InputRefusedError(f"{path}: cannot be read ({error.strerror}); take it out of the folder") from error
        return hashlib.sha256(VERSION + f"{content} {self.template}".encode()).hexdigest()[:32].encode()

    def missing(self) -> list[int]:
        """The heads that still have to be prepared. Damaged files are removed."""
        found = []
        for index, file in enumerate(self.files):
            if file.is_file() and read_kept(file) is None:
                self.report(f"{file}: damaged; {Path(self.data[index]).name} is prepared again")
                file.unlink()
            if not file.is_file():
                found.append(index)
        return found

    def _transform(self, index: int) -> dict[str, Tensor]:
        file = self.files[index]
        head = read_kept(file) if file.is_file() else None
        if head is None:
            head = self._prepared(self.data[index])
            with replacing(file, force=True) as temporary:
                torch.save({"head": head, "sha256": fingerprint(head)}, temporary)
        return head

    def _prepared(self, path: str) -> dict[str, Tensor]:
        try:
            return self._pre_transform(path)
        except Exception as error:
            root = _root(error)
            if not isinstance(root, InputRefusedError):
                raise root from None
            named = str(root) if path in str(root) else f"{path}: {root}"
            raise InputRefusedError(f"{named}; take it out of the folder") from error


class KeptStack(Transform):
    """A file that `PreparedHeads` keeps -> its stack [Y, 1, Z, X], float16. Raises PriorError for a damaged one."""

    def __call__(self, file: str) -> Tensor:
        held = read_kept(Path(file))
        if held is None:
            raise PriorError(f"{file}: missing or damaged; run brgm-med train again, which makes it anew")
        return held["stack"]


def in_memory(files: Sequence[Path]) -> CacheDataset:
    """Kept heads, read once: item h is head h's [Y, 1, Z, X], float16. Raises PriorError as `KeptStack` does."""
    try:
        return CacheDataset([str(f) for f in files], Compose([KeptStack()]), progress=False, copy_cache=False)
    except Exception as error:
        raise _root(error) from None


def _root(error: BaseException) -> BaseException:
    """What a transform raised: MONAI wraps it, and our own errors may have causes."""
    while error.__cause__ is not None and not isinstance(error, BrgmError):
        error = error.__cause__
    return error


def prepare_heads(
    paths: Sequence[Path], run: Path, box: Grid, *, workers: int = 1, report: Callable[[str], None] = print
) -> PreparedHeads:
    """Register and normalise the heads at `paths` to the template in the folder `run`, into `run/cache`.

    What is there already is not made again, so that an interrupted preparation goes on where it stopped. 3 s a head
    on one core; `workers` processes. Raises as `PreparedHeads` does, and PriorError for an unreadable template.
    """
    cache = run / "cache"
    heads = PreparedHeads(paths, Template.load(run, box), cache, report)
    for stray in cache.glob(".brgm-*.part"):
        stray.unlink()
    missing = heads.missing()
    if len(missing) < len(paths):
        report(f"{len(paths) - len(missing)} of {len(paths)} heads were registered before")
    first = said = 0.0
    done = 0

    def advance() -> None:
        nonlocal first, said, done
        done += 1
        now = time.monotonic()
        if done == 1:  # until here processes were started: no measure of the rest
            first = said = now
            report(f"registered 1 of {len(missing)} heads")
        elif done == len(missing) or now - said >= 10:
            said, left = now, (now - first) / (done - 1) * (len(missing) - done) / 60
            report(f"registered {done} of {len(missing)} heads, {left:.1f} min left")

    if min(workers, len(missing)) < 2:
        for index in missing:
            heads[index]
            advance()
    else:
        share(
            [(index,) for index in missing],
            _work,
            min(workers, len(missing)),
            lambda _: advance(),
            broken="a process that registers heads was ended from outside, perhaps for want of memory; run the same "
            "command again, with fewer --threads",
            begin=_begin,
            arguments=(paths, run, box),
        )
    return heads


_worker: dict[str, Any] = {}


def _begin(paths: Sequence[Path], run: Path, box: Grid) -> None:
    """In a worker: one thread, deaf to Ctrl-C (the parent ends it), and never outliving the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    die_with_parent()
    _worker["heads"] = PreparedHeads(paths, Template.load(run, box), run / "cache")


def _work(index: int) -> None:
    _worker["heads"][index]
