"""Pictures: what is read is what is stored, what is written reads back, and everything doubtful is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from pydicom.uid import ComputedRadiographyImageStorage

from brgm_med.errors import CannotWriteError, InputRefusedError, UsageError
from brgm_med.pipelines.cli import main
from brgm_med.transforms import formats
from brgm_med.transforms.formats import nifti, picture, picture_encode, radiograph
from brgm_med.transforms.formats.picture import Picture
from brgm_med.transforms.intensity import Normalisation
from tests import contracts
from tests.dicom_files import image, save

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(channels: int, dtype: str, height: int = 20, width: int = 31) -> NDArray:
    """Noise over the whole range of `dtype`, [C, H, W]."""
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (channels, height, width), np.dtype(dtype), endpoint=True)


def like(stored: NDArray, dpi: tuple[float, float] | None = (300.0, 200.0), icc: bytes | None = ICC) -> Picture:
    return Picture(Path("a"), stored, picture.used_range(stored), dpi=dpi, icc=icc)


def interleaved(stored: NDArray) -> NDArray:
    return stored[0] if len(stored) == 1 else np.moveaxis(stored, 0, -1)


def opened(path: Path) -> Image.Image:
    """The picture at `path` as Pillow sees it, its file closed."""
    with Image.open(path) as image:
        image.load()
        return image


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_depth_and_format_comes_back_bit_by_bit(
    tmp_path: Path, channels: int, dtype: str, suffix: str
) -> None:
    source = like(pixels(channels, dtype))
    path = tmp_path / f"a{suffix}"

    def write(path: Path) -> NDArray:
        written = picture.write(path, source.array, source, "derived: \N{GREEK SMALL LETTER MU}")
        assert written.clipped == 0
        return written.array

    again = contracts.round_trip(
        path,
        write,
        lambda p: formats.for_reading(p, "picture").read(p),
        source.array,
        header=lambda p: (p.icc, p.channels, p.shape, p.bits),
        expected=(ICC, channels, (20, 31), 8 * np.dtype(dtype).itemsize),
    )
    assert again.stored.dtype == dtype
    np.testing.assert_array_equal(again.stored, source.stored)
    np.testing.assert_allclose(again.dpi, source.dpi, rtol=1e-5)
    picture.write(tmp_path / f"b{suffix}", again.array, again, "derived: \N{GREEK SMALL LETTER MU}")
    assert (tmp_path / f"b{suffix}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("text", ["derived, research only", "d\xe9riv\xe9", "\N{GREEK SMALL LETTER MU}"])
def test_what_pillow_and_tifffile_see_of_what_we_write(tmp_path: Path, text: str) -> None:
    grey, colour = like(pixels(1, "uint16")), like(pixels(3, "uint8"))
    for source in (grey, colour):
        for suffix in (".png", ".tif"):
            picture.write(tmp_path / f"a{suffix}", source.array, source, text, force=True)
            witness = opened(tmp_path / f"a{suffix}")
            np.testing.assert_array_equal(np.asarray(witness), interleaved(source.stored))
            assert [float(d) for d in witness.info["dpi"]] == pytest.approx([300, 200], rel=1e-5)
            assert witness.info["icc_profile"] == ICC
        assert opened(tmp_path / "a.png").text["Description"] == text  # type: ignore[attr-defined]
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.pages[0].tags["ImageDescription"].value in (text, text.encode())  # type: ignore[union-attr]
    picture.write(tmp_path / "a.jpg", colour.array, colour, text)
    witness = opened(tmp_path / "a.jpg")
    assert witness.info["comment"] == text.encode()
    assert (witness.info["dpi"], witness.info["icc_profile"], witness.size) == ((300, 200), ICC, (31, 20))


def test_no_dpi_icc_or_description_stays_none(tmp_path: Path) -> None:
    source = like(pixels(3, "uint8"), None, None)
    for name in ("a.png", "a.tif", "a.jpg"):
        picture.write(tmp_path / name, source.array, source)
        again = picture.read(tmp_path / name)
        assert (again.dpi, again.icc) == (None, None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied_once(tmp_path: Path, orientation: int) -> None:
    """For all formats and depths; the witness is Pillow's exif_transpose, for what Pillow can read."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = pixels(3, "uint8", 16, 24)
    Image.fromarray(interleaved(small)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 200), quality=95)
    Image.fromarray(interleaved(small)).save(tmp_path / "a.png", exif=exif, dpi=(300, 200))
    for name in ("a.jpg", "a.png"):
        expected = np.asarray(ImageOps.exif_transpose(opened(tmp_path / name)))
        found = picture.read(tmp_path / name)
        np.testing.assert_array_equal(interleaved(found.stored), expected)
        np.testing.assert_allclose(found.dpi, (300, 200) if orientation < 5 else (200, 300), rtol=1e-4)
        upright = interleaved(picture.read(tmp_path / "a.png").stored)
    for dtype in ("uint8", "uint16"):
        for options in ({}, {"tile": (16, 16)}, {"compression": "lzw"}):
            deep = interleaved(small).astype(dtype)
            tags = [(0x0112, "H", 1, orientation, True)]
            tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=tags, **options)  # type: ignore[arg-type]
            np.testing.assert_array_equal(interleaved(picture.read(tmp_path / "a.tif").stored), upright)
    source = picture.read(tmp_path / "a.png")
    picture.write(tmp_path / "out.png", source.array, source)
    assert opened(tmp_path / "out.png").getexif().get(0x0112, 1) == 1
    np.testing.assert_array_equal(picture.read(tmp_path / "out.png").stored, source.stored)


def test_a_16_bit_tiff_of_300_by_200_and_a_large_jpeg_keep_size_depth_and_place(tmp_path: Path) -> None:
    deep = pixels(1, "uint16", 200, 300)[0] >> 4  # 12 bits in 16
    tifffile.imwrite(tmp_path / "a.tif", deep)
    source = picture.read(tmp_path / "a.tif")
    assert source.range == (0, 4095)
    picture.write(picture.default_output(source.path), source.array, source)
    with tifffile.TiffFile(tmp_path / "a_brgm.tif") as file:
        np.testing.assert_array_equal(file.asarray(), deep)
    ramp = np.add.outer(np.arange(1024), np.arange(1024) * 0.5) / 1536 * 255
    Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], -1).astype(np.uint8)).save(tmp_path / "b.jpg", quality=95)
    source = picture.read(tmp_path / "b.jpg")
    picture.write(picture.default_output(source.path), source.array, source)
    witness = opened(tmp_path / "b_brgm.png")
    assert (witness.size, witness.mode) == ((1024, 1024), "RGB")
    np.testing.assert_array_equal(np.asarray(witness), np.asarray(opened(tmp_path / "b.jpg")))


def test_what_is_read_of_other_encodings(tmp_path: Path) -> None:
    """Palettes, few bits, min-is-white, other byte orders, planes, tiles, hidden alpha, JPEG in TIFF."""
    colour, grey = pixels(3, "uint8"), pixels(1, "uint16")
    indexed = Image.fromarray(interleaved(colour)).quantize(16)
    rgb = np.moveaxis(np.asarray(indexed.convert("RGB")), -1, 0)
    deep = pixels(3, "uint16")
    opaque = np.concatenate([deep, np.full((1, 20, 31), 65535, np.uint16)])

    def found(name: str) -> NDArray:
        return picture.read(tmp_path / name).stored

    indexed.save(tmp_path / "p.png", bits=4)
    indexed.save(tmp_path / "p.tif")
    np.testing.assert_array_equal(found("p.png"), rgb)
    np.testing.assert_array_equal(found("p.tif"), rgb)
    (tmp_path / "four.png").write_bytes(few_bits(4))
    np.testing.assert_array_equal(np.unique(found("four.png")), np.arange(16) * 17)
    for dtype in (np.uint8, np.uint16):
        white = (grey >> 8 if dtype == np.uint8 else grey).astype(dtype)
        tifffile.imwrite(tmp_path / "w.tif", white[0], photometric="miniswhite")
        np.testing.assert_array_equal(found("w.tif"), np.iinfo(dtype).max - white)
    tifffile.imwrite(tmp_path / "be.tif", grey[0], byteorder=">")
    np.testing.assert_array_equal(found("be.tif"), grey)
    assert found("be.tif").dtype.isnative
    tifffile.imwrite(tmp_path / "planes.tif", deep, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(found("planes.tif"), deep)
    tifffile.imwrite(tmp_path / "big.tif", interleaved(deep), photometric="rgb", tile=(16, 16), bigtiff=True)
    np.testing.assert_array_equal(found("big.tif"), deep)
    extra = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "alpha.tif", np.moveaxis(opaque, 0, -1), **extra)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found("alpha.tif"), deep)
    Image.fromarray(interleaved(colour)).convert("RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(found("alpha.png"), colour)
    Image.fromarray(interleaved(colour)).save(tmp_path / "j.tif", compression="jpeg", quality=95)
    np.testing.assert_allclose(found("j.tif")[1], np.asarray(opened(tmp_path / "j.tif"))[..., 1], atol=8)


def few_bits(bits: int) -> bytes:
    """A grey PNG of 32 x 20 pixels of so many bits."""
    row = np.random.default_rng(0).integers(0, 256, (20, 32 * bits // 8), np.uint8)
    return png(struct.pack(">IIBBBBB", 32, 20, bits, 0, 0, 0, 0), b"".join(b"\0" + line.tobytes() for line in row))


def png(header: bytes, lines: bytes) -> bytes:
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, codec: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return buffer.getvalue()


def as_tiff(array: NDArray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bad_pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """What is wrong -> the file, and what the refusal says."""
    folder = tmp_path_factory.mktemp("bad")
    colour = Image.fromarray(interleaved(pixels(3, "uint8", 200, 310)))
    good = saved(colour, "PNG")
    jpeg, tiff = saved(colour, "JPEG"), as_tiff(pixels(1, "uint16")[0])
    packed = as_tiff(interleaved(pixels(3, "uint16", 200, 310)), photometric="rgb", compression="zlib")
    clear = colour.convert("RGBA")
    clear.putpixel((3, 4), (1, 2, 3, 0))
    deep_clear = np.zeros((20, 31, 4), np.uint16)
    frames = {"save_all": True, "append_images": [colour.rotate(180)]}
    rgba = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    absurd = png(struct.pack(">IIBBBBB", 60000, 60000, 16, 2, 0, 0, 0), bytes(1000))
    large = png(struct.pack(">IIBBBBB", 10000, 10000, 8, 0, 0, 0, 0), bytes(1000))
    files = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"not a picture\n" * 100, "no PNG, JPEG or TIFF"),
        "gif.png": (saved(colour, "GIF"), "no PNG, JPEG or TIFF"),
        "jpeg.png": (jpeg, "is a JPEG picture under another format's name; rename it to end in .jpg"),
        "png.tif": (good, "is a PNG picture"),
        "half.png": (good[: len(good) // 2], "truncated"),
        "end.png": (good[:-20], "truncated"),
        "start.png": (good[:20], "truncated"),
        "turned-bit.png": (good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "damaged"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "start.jpg": (jpeg[:10], "truncated"),
        "half.tif": (tiff[: len(tiff) // 2], "truncated"),
        "packed-half.tif": (packed[: len(packed) // 2], "truncated"),
        "start.tif": (tiff[:6], "truncated"),
        "no-width.png": (png(struct.pack(">IIBBBBB", 0, 20, 8, 0, 0, 0, 0), b""), "damaged"),
        "absurd.png": (absurd, "pixels"),
        "large.png": (large, "more than 89478485 pixels"),
        "absurd.tif": (as_tiff(np.zeros((1, 1), np.uint8)).replace(*absurd_width()), "pixels"),
        "transparent.png": (saved(clear, "PNG"), "transparent"),
        "transparent-colour.png": (saved(colour.quantize(8), "PNG", transparency=3), "transparent"),
        "transparent.tif": (as_tiff(deep_clear, **rgba), "transparent"),
        "one-bit.png": (saved(colour.convert("1"), "PNG"), "1 bit"),
        "one-bit.tif": (saved(colour.convert("1"), "TIFF"), "1 bit"),
        "animated.png": (saved(colour, "PNG", **frames), "animated"),
        "pages.tif": (saved(colour, "TIFF", **frames), "2 pages"),
        "cmyk.jpg": (saved(colour.convert("CMYK"), "JPEG"), "CMYK"),
        "cmyk.tif": (saved(colour.convert("CMYK"), "TIFF"), "4 channels of SEPARATED"),
        "lab.tif": (saved(colour.convert("LAB"), "TIFF"), "CIELAB"),
        "float.tif": (as_tiff(np.zeros((9, 9), np.float32)), "IEEEFP, 32 bits"),
        "signed.tif": (as_tiff(np.zeros((9, 9), np.int16)), "type INT, 16 bits"),
        "deep.tif": (as_tiff(np.zeros((9, 9), np.uint32)), "32 bits"),
        "volume.tif": (as_tiff(np.zeros((16, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16)), "1 channels"),
    }
    made = {"missing": (folder / "missing.png", "no such file"), "folder": (folder / "folder.png", "is a folder")}
    made["folder"][0].mkdir()
    for name, (content, says) in files.items():
        (folder / name).write_bytes(content)
        made[name] = folder / name, says
    return made


def absurd_width() -> tuple[bytes, bytes]:
    """ImageWidth and ImageLength of 1, and of 65000."""
    tag = struct.Struct("<HHII")
    return tag.pack(256, 4, 1, 1) + tag.pack(257, 4, 1, 1), tag.pack(256, 4, 1, 65000) + tag.pack(257, 4, 1, 65000)


def test_every_bad_picture_is_refused_in_one_line(bad_pictures: dict[str, tuple[Path, str]]) -> None:
    for path, says in bad_pictures.values():
        contracts.refused(picture.read, path, says)


def test_bombs_and_their_like_cost_neither_time_nor_memory(bad_pictures: dict[str, tuple[Path, str]]) -> None:
    code = """
import re, sys, time
from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats import picture
start = time.perf_counter()
for path in sys.argv[1:]:
    try:
        picture.read(path)
    except InputRefusedError:
        continue
    sys.exit("accepted")
heavy = {"torch", "monai", "nibabel", "SimpleITK", "scipy", "pydicom"} & set(sys.modules)
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(time.perf_counter() - start, peak, *heavy)
"""
    paths = [bad_pictures[name][0] for name in ("absurd.png", "large.png", "absurd.tif")]
    done = subprocess.run([sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True)
    seconds, peak, *heavy = done.stdout.split()
    assert float(seconds) < 2
    assert float(peak) < 300
    assert not heavy
    assert not done.stderr


def test_values_are_rounded_and_what_is_clipped_is_counted(tmp_path: Path) -> None:
    source = like(pixels(1, "uint8", 2, 3))
    values = np.array([[[-0.4, -0.6, 0.49], [254.51, 255.5, 300]]])
    held = picture.write(tmp_path / "a.png", values, source)
    np.testing.assert_array_equal(held.array, [[[0, 0, 0], [255, 255, 255]]])
    assert held.clipped == 3


def test_a_finer_result_keeps_the_size_on_paper(tmp_path: Path) -> None:
    source = like(pixels(3, "uint16"))
    picture.write(tmp_path / "a.tif", np.zeros((3, 40, 93)), source)
    assert picture.read(tmp_path / "a.tif").dpi == pytest.approx((900, 400))


def test_jpeg_is_written_only_by_name_and_for_8_bits(tmp_path: Path) -> None:
    names = {"a.jpg": "a_brgm.png", "a.JPEG": "a_brgm.png", "a.png": "a_brgm.png", "a.TIF": "a_brgm.tif"}
    names |= {"a.tiff": "a_brgm.tiff", "a.dcm": "a_brgm.dcm", "1.2.840": "1.2.840_brgm.dcm", "IM1": "IM1_brgm.dcm"}
    for name, output in names.items():
        assert picture.default_output(tmp_path / name) == tmp_path / output
    deep = like(pixels(1, "uint16"))
    with pytest.raises(UsageError, match="JPEG holds 8 bits"):
        picture.write(tmp_path / "a.jpg", deep.array, deep)
    with pytest.raises(UsageError, match=r"must end in \.png or"):
        picture.write(tmp_path / "a.bmp", deep.array, deep)
    for values in (deep.array * np.nan, deep.array[0], pixels(3, "uint16"), np.zeros((1, 0, 4))):
        with pytest.raises(ValueError, match="finite values"):
            picture.write(tmp_path / "a.png", values, deep)
    assert not list(tmp_path.iterdir())


def test_a_result_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = like(pixels(3, "uint8"))
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(InputRefusedError, match="--force"):
        picture.write(path, source.array, source)
    with pytest.raises(CannotWriteError, match="there is no folder"):
        picture.write(tmp_path / "nowhere" / "a.png", source.array, source)
    for damage, says in ((lambda d: d[:-30], "does not read back"), (lambda d: d, "reads back differently")):
        broken = like(pixels(3, "uint8")[:, ::-1])

        def encode(*_: object, damage=damage, broken=broken) -> bytes:  # type: ignore[no-untyped-def]
            return damage(picture_encode.encode(broken.stored, "PNG", None, None, None))

        monkeypatch.setattr(picture, "encode", encode)
        with pytest.raises(CannotWriteError, match=says):
            picture.write(path, source.array, source, force=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([[[0, 7]]], np.uint8), 255),
        (np.array([[[0, 7]]], np.uint16), 255),
        (np.array([[[0, 1024]]], np.uint16), 2047),
        (np.array([[[0, 4095]]], np.uint16), 4095),
        (np.array([[[0, 40000]]], np.uint16), 65535),
    ],
)
def test_the_range_is_that_of_the_bits_in_use(stored: NDArray, expected: float) -> None:
    assert picture.used_range(stored) == (0, expected)


@pytest.mark.parametrize("high", [255, 4095, 65535])
def test_normalisation_is_exactly_invertible_for_every_stored_integer(high: int) -> None:
    import torch

    levels = torch.arange(high + 1, dtype=torch.float64)
    normal = Normalisation.of_range(0, high)
    assert normal.forward(levels[[0, -1]]).tolist() == [-1, 1]
    assert torch.equal(normal.inverse(normal.forward(levels)).round(), levels)
    assert torch.equal(normal.inverse(normal.forward(levels.float())).round(), levels.float())


def test_formats_tell_volumes_from_pictures(tmp_path: Path) -> None:
    made = image(np.zeros((4, 5), np.uint16), [0, 0, 0], SOPClassUID=ComputedRadiographyImageStorage)
    del made.ImagePositionPatient
    save(made, tmp_path / "IM0001")
    (tmp_path / "notes").write_bytes(b"no")
    kinds = {"a.nii": "volume", "a.NII.GZ": "volume", "a.png": "picture", "a.JPG": "picture", "a.dcm": "picture"}
    for name, kind in (kinds | {"IM0001": "picture"}).items():
        assert formats.kind_of(tmp_path / name) == kind
    assert formats.for_reading(tmp_path / "IM0001", "picture") is radiograph
    assert formats.for_reading("a.nii") is nifti
    assert formats.for_writing("a.nii.gz") is nifti
    with pytest.raises(InputRefusedError, match=r"a\.png: is a picture, not a volume; give a volume"):
        formats.for_reading("a.png")
    with pytest.raises(InputRefusedError, match=r"a\.nii: is a volume, not a picture"):
        formats.for_reading("a.nii", "picture")
    with pytest.raises(InputRefusedError, match="not named like a scan"):
        formats.kind_of(tmp_path / "notes")
    for name in ("a.png", "a.dcm", "a"):
        with pytest.raises(UsageError, match="must end in"):
            formats.for_writing(name)
    for name in ("a.nii", "a.dcm", "a"):
        with pytest.raises(UsageError, match="must end in"):
            picture.check_output_name(name, like(pixels(1, "uint8")))
    assert formats.stem("b/a.jpeg") == "a"


def test_commands_for_volumes_refuse_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(few_bits(8))
    assert main(["degrade", "--factor", "2", "--out", str(tmp_path / "o.nii"), "--in", str(tmp_path / "a.png")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a picture, not a volume" in line


def test_the_pictures_of_a_folder_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.JPG", "3.tiff", "a/1.png", ".hidden.png", "a/scan.nii", "a/notes.txt", "c.png/4.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    names = ["a/1.png", "b/1.png", "a/2.JPG", "3.tiff", "c.png/4.dcm", "IM1"]
    assert [str(p.relative_to(tmp_path)) for p in formats.pictures_in(tmp_path)] == names
    (tmp_path / "empty").mkdir()
    for folder, says in (("empty", "holds no picture"), ("3.tiff", "is not a folder")):
        with pytest.raises(InputRefusedError, match=says):
            formats.pictures_in(tmp_path / folder)


def test_the_first_chest_x_rays_and_portraits_survive_a_round_trip(tmp_path: Path, data_dir: Path) -> None:
    for folder in ("xray-hannover", "faces-london", "faces-congress"):
        for path in formats.pictures_in(data_dir / folder)[:2]:
            source = picture.read(path)
            held = picture.write(tmp_path / f"{folder}.png", source.array, source, force=True)
            np.testing.assert_array_equal(held.array, source.stored)
            np.testing.assert_array_equal(interleaved(source.stored), np.asarray(opened(path)))


@pytest.mark.parametrize("predictor", [2, 3])
def test_a_predictor_without_compression_can_be_read_in_two_ways(tmp_path: Path, predictor: int) -> None:
    """Tag 317; tifffile writes it beside a compression only, so its neighbour 316 is written and renamed."""
    path, pixels = tmp_path / "a.tif", np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    tifffile.imwrite(path, pixels, extratags=[(316, "H", 1, predictor, True)])
    np.testing.assert_array_equal(picture.read(path).stored[0], pixels)
    entry = struct.pack("<HHIH", 316, 3, 1, predictor)
    content = path.read_bytes()
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, struct.pack("<HHIH", 317, 3, 1, predictor)))
    with pytest.raises(InputRefusedError, match="a predictor and no compression"):
        picture.read(path)
    tifffile.imwrite(path, pixels, compression="zlib", predictor=True)
    np.testing.assert_array_equal(picture.read(path).stored[0], pixels)
