"""One file of every kind that must be refused, small and quick to make."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 0, 3, -126], [0, 2.5, 0, -72], [0, 0, 0, 1]])

LYING = ("gigabytes", "gigabytes-gz", "bomb-declared", "bomb-undeclared", "absurd-dimensions")
"""Those that must be refused in under 1 s and 300 MB."""


def voxels(shape: tuple[int, ...] = (12, 13, 14), seed: int = 0) -> NDArray[np.int16]:
    """Whole numbers, 0 to 999."""
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def nifti(array: NDArray, affine: NDArray[np.float64] = AFFINE) -> nib.Nifti1Image:
    """An image whose sform and qform both are `affine` (code 1) and whose unit is mm."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    return image


def oblique_affine(seed: int, mirrored: bool = False) -> NDArray[np.float64]:
    """A random rotation, voxel sizes 0.4 to 6 mm, and a random origin."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(0.4, 6, 3)
    affine[:3, 2] *= -1 if mirrored else 1
    affine[:3, 3] = rng.normal(0, 100, 3)
    return affine


def opened(path: Path) -> nib.Nifti1Image:
    """The image at `path` as nibabel sees it."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def poked(content: bytes, *changes: tuple[int, str, float]) -> bytes:
    """`content` with numbers of the given struct format put at the given byte offsets."""
    result = bytearray(content)
    for offset, form, value in changes:
        struct.pack_into(form, result, offset, value)
    return bytes(result)


def zeros_gzip(head: bytes, megabytes: int) -> bytes:
    """A gzip stream of `head` and then zeros, made without packing them all. Its checksum is wrong."""
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    raw = zlib.compressobj(9, wbits=-15)
    block = raw.compress(bytes(1 << 20)) + raw.flush(zlib.Z_FULL_FLUSH)
    return start + block * megabytes + raw.flush() + bytes(8)


def make_bad_scans(folder: Path) -> dict[str, Path]:
    """Write every bad scan into `folder`; what is wrong -> its path ("missing" is not there)."""
    good = nifti(voxels()).to_bytes()
    packed = gzip.compress(good, 6, mtime=0)
    float32, oblique = voxels().astype(np.float32), AFFINE.copy()
    oblique[0, 1] = 0.5
    turned = AFFINE @ np.diag([1, 1, 1.02, 1])
    twisted = nifti(voxels(), AFFINE)
    twisted.set_sform(turned, 1)
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with_nan, with_inf = float32.copy(), float32.copy()
    with_nan[3, 4, 5], with_inf[3, 4, 5] = np.nan, np.inf
    noise = np.random.default_rng(0).integers(0, 256, 1 << 21, np.uint8).tobytes()
    declares_2_30 = poked(good[:352], (42, "<h", 1024), (44, "<h", 1024), (46, "<h", 1024))
    as_bytes = poked(declares_2_30, (70, "<h", 2), (72, "<h", 8))
    nowhere = poked(good, (252, "<h", 0), (254, "<h", 0))
    plain = {
        "empty": b"",
        "text": b"this is not an image\n" * 100,
        "analyze": poked(good, (344, "<i", 0)),
        "half-of-a-pair": good[:344] + b"ni1\0" + good[348:],
        "truncated": good[:-100],
        "truncated-header": good[:200],
        "trailing-bytes": good + b"and more",
        "nan": nifti(with_nan).to_bytes(),
        "infinite": nifti(with_inf).to_bytes(),
        "beyond-float32": nifti(float32.astype(np.float64) * 1e300).to_bytes(),
        "constant": nifti(np.full((5, 6, 7), 42, np.int16)).to_bytes(),
        "four-dimensions": nifti(voxels((5, 6, 7, 2))).to_bytes(),
        "five-dimensions": nifti(voxels((5, 6, 7, 1, 3))).to_bytes(),
        "two-dimensions": nifti(voxels((5, 6))).to_bytes(),
        "rgb": nifti(colours).to_bytes(),
        "complex": nifti(float32.astype(np.complex64)).to_bytes(),
        "unknown-type": poked(good, (70, "<h", 77)),
        "bitpix": poked(good, (72, "<h", 8)),
        "zero-dimension": poked(good, (44, "<h", 0)),
        "negative-dimension": poked(good, (44, "<h", -13)),
        "no-dimensions": poked(good, (40, "<h", 0)),
        "absurd-dimensions": poked(good, (42, "<h", 32767), (44, "<h", 32767), (46, "<h", 32767)),
        "gigabytes": declares_2_30 + good[352:],
        "voxels-inside-header": poked(good, (108, "<f", 100.0)),
        "infinite-slope": poked(good, (112, "<f", np.inf)),
        "nan-intercept": poked(good, (112, "<f", 1.0), (116, "<f", np.nan)),
        "unknown-unit": poked(good, (123, "B", 5)),
        "singular-affine": poked(good, *((280 + 4 * i, "<f", 0.0) for i in range(4))),
        "nan-affine": poked(good, (280, "<f", np.nan)),
        "sheared-affine": poked(nifti(voxels(), oblique).to_bytes(), (252, "<h", 0)),
        "bad-quaternion": poked(good, (256, "<f", 0.9), (260, "<f", 0.9)),
        "nan-quaternion": poked(good, (256, "<f", np.nan)),
        "negative-voxel-size": poked(good, (80, "<f", -2.0)),
        "no-affine": nowhere,
        "affines-disagree": twisted.to_bytes(),
    }
    gzipped = {
        "text-gz": b"this is not an image\n" * 100,
        "packed-text": gzip.compress(b"this is not an image\n" * 100),
        "truncated-gz": packed[: len(packed) // 2],
        "truncated-gz-checksum": packed[:-3],
        "truncated-inside-gz": gzip.compress(good[:-100]),
        "trailing-bytes-gz": gzip.compress(good + b"and more"),
        "garbage-after-gz": packed + b"and more",
        "wrong-crc": poked(packed, (len(packed) - 8, "<I", zlib.crc32(good) ^ 1)),
        "damaged-gz": packed[:400] + b"\xff" * 64 + packed[464:],
        "gigabytes-gz": gzip.compress(declares_2_30 + good[352:]),
        "gigabytes-gz-large": gzip.compress(poked(declares_2_30, (44, "<h", 200)) + noise, 1),
        "bomb-declared": zeros_gzip(as_bytes, 1024),
        "bomb-undeclared": zeros_gzip(good[:352], 2048),
    }
    paths = {"missing": folder / "missing.nii.gz", "folder": folder / "folder.nii"}
    paths["folder"].mkdir()
    paths["other-name"] = folder / "other-name.img"
    paths["other-name"].write_bytes(good)
    for suffix, contents in ((".nii", plain), (".nii.gz", gzipped)):
        for name, content in contents.items():
            paths[name] = folder / f"{name}{suffix}"
            paths[name].write_bytes(content)
    return paths
