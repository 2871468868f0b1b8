"""Heads as training reads them: each in a file of its own, under the hash of scan, template and version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor, PersistentDataset
from monai.transforms import Compose
from torch import Tensor

from brgm_med.errors import BrgmError, InputRefusedError, PriorError
from brgm_med.files import digest, replacing
from brgm_med.transforms.coronal import CoronalSlices
from brgm_med.transforms.load import LoadScan
from brgm_med.transforms.rigid import RegisterNormalised
from brgm_med.transforms.template import Template

VERSION = b"1"
"""Part of every file's key: to be raised when the preparation of a head changes."""


def packed(stack: MetaTensor) -> dict[str, Tensor]:
    """A registered stack -> its file's entries: `stack` [Y, 1, Z, X] float16, `pose` [4, 4] float64, `correlation`."""
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


def read_head(file: Path) -> dict[str, Tensor] | None:
    """The head that `PreparedHeads` wrote into `file`; None when it is damaged (torch does not see a turned bit)."""
    try:
        content = torch.load(file, weights_only=True)
        return content["head"] if fingerprint(content["head"]) == content["sha256"] else None
    except Exception:  # a damaged archive fails in as many ways as pickle, zip and torch have
        return None


class PreparedHeads(PersistentDataset):
    """Heads as `packed` leaves them, each in a file of `cache` under the hash of scan, template and version.

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
        chain = Compose([LoadScan(), RegisterNormalised(template), CoronalSlices()])
        super().__init__([str(p) for p in paths], chain, cache)
        self.files = [cache / f"{self.key(path)}.pt" for path in self.data]

    def key(self, path: str) -> str:
        """The name of the file of the head at `path`."""
        try:
            content = digest(Path(path))
        except OSError as error:
            raise InputRefusedError(f"{path}: cannot be read ({error.strerror}); take it out of the folder") from error
        return hashlib.sha256(VERSION + f"{content} {self.template}".encode()).hexdigest()[:32]

    def missing(self) -> list[int]:
        """The heads that still have to be prepared. Damaged files are removed."""
        missing = []
        for index, file in enumerate(self.files):
            if file.is_file() and read_head(file) is None:
                self.report(f"{file}: damaged; {Path(self.data[index]).name} is prepared again")
                file.unlink()
            if not file.is_file():
                missing.append(index)
        return missing

    def _transform(self, index: int) -> dict[str, Tensor]:
        file = self.files[index]
        head = read_head(file) if file.is_file() else None
        if head is None:
            head = self._prepared(self.data[index])
            with replacing(file, force=True) as temporary:
                torch.save({"head": head, "sha256": fingerprint(head)}, temporary)
        return head

    def _prepared(self, path: str) -> dict[str, Tensor]:
        try:
            return packed(self._pre_transform(path))
        except Exception as error:
            root: BaseException = error
            while root.__cause__ is not None and not isinstance(root, BrgmError):  # MONAI wraps what a transform raises
                root = root.__cause__
            if not isinstance(root, InputRefusedError):
                raise root from None
            named = str(root) if path in str(root) else f"{path}: {root}"
            raise InputRefusedError(f"{named}; take it out of the folder") from error


def cached_stack(file: Path) -> Tensor:
    """The stack [Y, 1, Z, X], float16, in a file of `PreparedHeads`. Raises PriorError for a damaged one."""
    head = read_head(file)
    if head is None:
        raise PriorError(f"{file}: missing or damaged; run brgm-med train again, which makes it anew")
    return head["stack"]
