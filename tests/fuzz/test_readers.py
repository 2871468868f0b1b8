"""Readers of damaged and hostile files: they read or refuse; no other exception, whatever the file.

The same examples every time: a few in the fast tests, two thousand a reader in the slow ones.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from brgm_med.errors import BrgmError
from brgm_med.files import digest, read_json
from brgm_med.pipelines.steps.series import describe
from brgm_med.priors import bundle, foreign
from brgm_med.transforms import formats
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.formats import nifti, picture, radiograph
from brgm_med.transforms.formats.dicom import write
from brgm_med.transforms.formats.dicom.reader import Reader
from brgm_med.transforms.formats.dicom.series import find_series
from brgm_med.transforms.geometry import Grid
from tests import radiographs, tiny
from tests.bad_scans import nifti as image_of
from tests.bad_scans import voxels
from tests.bundles import export
from tests.dicom_files import enhanced, save
from tests.fuzz.strategies import changed_elements, changed_json, damaged
from tests.mr_series import HOW, blob, mr_series

Check = Callable[[bytes], object]
FEW, MANY = 25, 2000


def attempt(read: Callable[[], object]) -> None:
    """Any error that is ours is an answer."""
    with suppress(BrgmError):
        read()


def fuzz(strategy: st.SearchStrategy[bytes], check: Check, count: int) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)
    @given(strategy)
    def each(content: bytes) -> None:
        check(content)

    each()


def reading(path: Path, read: Callable[[Path], object]) -> Check:
    def check(content: bytes) -> None:
        path.write_bytes(content)
        attempt(lambda: read(path))

    return check


def nifti_files(folder: Path) -> list[tuple[st.SearchStrategy[bytes], Check]]:
    plain = image_of(voxels((4, 5, 6))).to_bytes()
    header = damaged(plain[:352]).map(lambda start: start + plain[352:])
    zipped = damaged(plain[:400]).map(lambda start: gzip.compress(start + plain[400:], 1, mtime=0))
    packed = damaged(gzip.compress(plain, 1, mtime=0))
    files = folder / "a.nii", folder / "b.nii.gz", folder / "c.nii.gz"
    return [(s, reading(f, nifti.read)) for s, f in zip((header, zipped, packed), files, strict=True)]


def pictures(folder: Path) -> list[tuple[st.SearchStrategy[bytes], Check]]:
    pixels = np.random.default_rng(0).integers(0, 4096, (9, 11)).astype(np.uint16)
    jpeg, tiff, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(jpeg, "JPEG")
    tifffile.imwrite(tiff, pixels, metadata=None)
    tifffile.imwrite(packed, pixels, compression="zlib", predictor=True, metadata=None)
    contents = {
        "a.png": bytes(imagecodecs.png_encode(pixels)),
        "a.jpg": jpeg.getvalue(),
        "a.tif": tiff.getvalue(),
        "b.tif": packed.getvalue(),
    }
    return [(damaged(content), reading(folder / name, picture.read)) for name, content in contents.items()]


def dicom(folder: Path) -> list[tuple[st.SearchStrategy[bytes], Check]]:
    """One slice of a series of three, an enhanced file and a radiograph; what is read is listed, and written again."""
    scan = mr_series(folder / "scan", blob((5, 4, 3)))
    many = save(enhanced(), folder / "enhanced" / "a.dcm")
    single = radiographs.written(radiographs.dicom(radiographs.pixels()), folder / "chest.dcm")

    def volume(path: Path) -> None:
        source = path.parent
        for stack in find_series(source).stacks:
            describe(stack, source)
        read = Reader().read(source)
        assert read.header.series is not None
        shutil.rmtree(folder / "out", ignore_errors=True)
        write.write(folder / "out", read.array, read.affine, read.header.series, HOW)

    first, checks = scan / "IM001", reading(single, radiograph.read)
    return [
        (changed_elements(first.read_bytes()), reading(first, volume)),
        (damaged(first.read_bytes()), reading(first, volume)),
        (changed_elements(many.read_bytes()), reading(many, volume)),
        (changed_elements(single.read_bytes()), checks),
        (damaged(single.read_bytes()), checks),
    ]


def sidecars(folder: Path) -> list[tuple[st.SearchStrategy[bytes], Check]]:
    grid = Grid((4, 5, 6), np.diag([1.0, 1.0, 5.0, 1.0]))
    content = AcquisitionModel((1.0, 1.0, 4.0), "gaussian", 2, True).to_sidecar(grid) | {"SliceThickness": 4.0}
    path = folder / "a.json"
    check = reading(path, lambda file: AcquisitionModel.from_sidecar(read_json(file), grid, str(file)))
    return [(changed_json(content), check), (damaged(json.dumps(content).encode()), check)]


def bundles(folder: Path) -> list[tuple[st.SearchStrategy[bytes], Check]]:
    """The metadata; networks and weights whose hashes are right; an imported generator."""
    prior = export(tiny.state(), folder / "a" / "tiny")
    metadata_file = prior / "configs" / "metadata.json"
    metadata: dict[str, Any] = json.loads(metadata_file.read_text())

    def use() -> None:
        loaded = bundle.load(str(prior))
        _ = loaded.name, loaded.image_shape, loaded.image_channels, loaded.volumetric, loaded.encoded
        _ = loaded.grid_shape, loaded.spacing, loaded.positions()
        _ = loaded.generator, loaded.statistics, loaded.linear

    def replaced(name: str) -> Check:
        original = (prior / name).read_bytes()

        def check(content: bytes) -> None:
            (prior / name).write_bytes(content)
            hashes = metadata["sha256"] | {name: digest(prior / name)}
            metadata_file.write_text(json.dumps(metadata | {"sha256": hashes}))
            try:
                attempt(use)
            finally:
                (prior / name).write_bytes(original)

        return check

    def load_metadata(content: bytes) -> None:
        metadata_file.write_bytes(content)
        attempt(use)

    config = json.loads((prior / "configs" / "inference.json").read_text())
    weights = (prior / "models" / "w_statistics.safetensors").read_bytes()
    networks = (prior / "models" / "model.safetensors").read_bytes()
    imported = folder / "net.safetensors"
    (folder / "net.json").write_text(json.dumps({k: v for k, v in config["network_def"].items() if k != "_target_"}))
    return [
        (changed_json(metadata), load_metadata),
        (damaged(json.dumps(metadata).encode()), load_metadata),
        (changed_json(config), replaced("configs/inference.json")),
        (damaged(weights), replaced("models/w_statistics.safetensors")),
        (damaged(networks[:3000]).map(lambda start: start + networks[3000:]), reading(imported, foreign.load)),
    ]


READERS = {f.__name__: f for f in (nifti_files, pictures, dicom, sidecars, bundles)}


@pytest.mark.parametrize("name", READERS)
def test_readers_read_or_refuse(name: str, tmp_path: Path) -> None:
    for strategy, check in READERS[name](tmp_path):
        fuzz(strategy, check, FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_readers_read_or_refuse_two_thousand(name: str, tmp_path: Path) -> None:
    parts = READERS[name](tmp_path)
    for strategy, check in parts:
        fuzz(strategy, check, MANY // len(parts))


def test_the_sound_files_are_read(tmp_path: Path) -> None:
    """What is damaged in here was sound before: the tests above do not only see files that are no scans at all."""
    folders = {name: tmp_path / name for name in READERS}
    for name, folder in folders.items():
        folder.mkdir()
        READERS[name](folder)
    assert Reader().read(folders["dicom"] / "scan").array.shape == (5, 4, 3)
    assert Reader().read(folders["dicom"] / "enhanced").array.shape == (7, 6, 5)
    assert formats.kind_of(folders["dicom"] / "chest.dcm") == "picture"
    assert dcmread(folders["dicom"] / "chest.dcm").Rows == 20
    assert bundle.load(str(folders["bundles"] / "a" / "tiny")).generator is not None
