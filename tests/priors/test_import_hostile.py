"""Files that are hostile, damaged or of another network: refused in one line, nothing run, nothing written."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import random
import stat
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch
from safetensors.torch import save_file

from brgm_med.errors import PriorError
from brgm_med.pipelines import cli
from brgm_med.priors import foreign
from brgm_med.priors.containers import UNREADABLE, parse
from tests.bad_scans import nifti, voxels
from tests.foreign_files import Call, Kept, pickled, published_modules, snapshot, tiny, tiny_critic

Content = dict[str, Any]
HOSTILE: dict[str, Callable[[Path], bytes]] = {}
"""Name -> the bytes of a file that would make `canary` if it could run anything."""


def hostile(make: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    HOSTILE[make.__name__] = make
    return make


def good(**content: Any) -> Content:
    return snapshot(tiny().state_dict(), tiny_critic().state_dict(), **content)


def touch(canary: Path) -> Call:
    return Call(os.system, f"touch {canary}")


def text(value: str) -> bytes:
    """Opcodes that push a text."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def named(module: str, name: str) -> bytes:
    """Opcodes that push a global."""
    return text(module) + text(name) + b"\x93"


def program(*opcodes: bytes) -> bytes:
    return b"\x80\x04" + b"".join(opcodes) + b"."


def torch_file(content: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    with published_modules():
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def with_bytes(old: bytes, new: bytes, data: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new)


# Calls.


@hostile
def os_system(canary: Path) -> bytes:
    return pickled(touch(canary))


@hostile
def os_system_beside_the_networks(canary: Path) -> bytes:
    return pickled(good(augment_pipe=touch(canary)))


@hostile
def os_system_in_the_state(canary: Path) -> bytes:
    content = good()
    content["G_ema"].child("synthesis.b8.conv0")["up"] = touch(canary)
    return pickled(content)


@hostile
def os_system_for_a_weight(canary: Path) -> bytes:
    content = good()
    content["G_ema"].child("synthesis.b8.conv0")["_parameters"]["weight"] = touch(canary)
    return pickled(content)


@hostile
def os_system_among_the_settings(canary: Path) -> bytes:
    content = good()
    content["G_ema"].meta["state"]["_init_kwargs"]["mapping_kwargs"] = touch(canary)
    return pickled(content)


@hostile
def os_system_for_the_source(canary: Path) -> bytes:
    return pickled(good(D=Kept("Discriminator", {}, source=touch(canary))))


@hostile
def subprocess_by_protocol_three(canary: Path) -> bytes:
    return pickled(good(D=Call(importlib.import_module("subprocess").getoutput, f"touch {canary}")), 3)


class Loads(Call):
    """A storage whose bytes are a payload, as torch itself would load them."""

    def __init__(self, data: Any) -> None:
        super().__init__(torch.storage._load_from_bytes, data)


@hostile
def os_system_in_the_bytes_of_a_tensor(canary: Path) -> bytes:
    return pickled(good(D=Loads(torch_file(touch(canary), zipped=False))))


@hostile
def os_system_in_a_zip_in_the_bytes_of_a_tensor(canary: Path) -> bytes:
    return pickled(good(D=Loads(torch_file(touch(canary)))))


@hostile
def os_system_as_the_bytes_of_a_tensor(canary: Path) -> bytes:
    return pickled(good(D=Loads(pickle.dumps(touch(canary)))))


@hostile
def tensors_in_the_bytes_in_the_bytes_of_a_tensor(_: Path) -> bytes:
    inner = torch_file(Loads(torch_file(torch.zeros(3), zipped=False)), zipped=False)
    return pickled(good(D=Loads(inner)))


@hostile
def no_bytes_for_the_bytes_of_a_tensor(_: Path) -> bytes:
    return pickled(good(D=Loads("text")))


@hostile
def os_system_in_a_torch_file(canary: Path) -> bytes:
    return torch_file({"g_ema": {}, "args": touch(canary)})


@hostile
def os_system_in_an_old_torch_file(canary: Path) -> bytes:
    return torch_file({"g_ema": {}, "args": touch(canary)}, zipped=False)


@hostile
def builtins_eval(canary: Path) -> bytes:
    return pickled(good(D=Call(eval, f"open({str(canary)!r}, 'w')")))


@hostile
def builtins_getattr(_: Path) -> bytes:
    return program(named("builtins", "getattr"), named("collections", "OrderedDict"), text("pop"), b"\x86R")


@hostile
def importlib_of_a_module(_: Path) -> bytes:
    return pickled(good(D=Call(importlib.import_module, "canary_module")))


@hostile
def a_global_of_a_module_that_acts_when_imported(_: Path) -> bytes:
    return program(b"ccanary_module\nanything\n")


@hostile
def torch_load(canary: Path) -> bytes:
    return pickled(good(D=Call(torch.load, str(canary))))


def dotted(module: str, name: str) -> None:
    label = f"dotted_{module}_{name}"

    def make(canary: Path) -> bytes:
        return program(named(module, name), text(f"touch {canary}"), b"\x85R")

    make.__name__ = label
    hostile(make)


dotted("builtins", "eval.__call__")
dotted("torch", "_utils._rebuild_tensor_v2")
dotted("torch._utils", "os.system")
dotted("torch.storage", "_load_from_bytes.__globals__")
dotted("torch_utils", "persistence._reconstruct_persistent_obj")
dotted("collections.OrderedDict", "__init__")
dotted("numpy", "dtype.__class__")


# Instructions.

SYSTEM = b"os\nsystem\n"
for title, opcodes in {
    "inst": b"(X\x02\x00\x00\x00lsi" + SYSTEM,
    "obj": b"(ccollections\nOrderedDict\no",
    "ext1": b"\x82\x01",
    "ext2": b"\x83\x01\x00",
    "ext4": b"\x84\x01\x00\x00\x00",
    "newobj_ex": named("dnnlib.util", "EasyDict") + b")}\x92",
    "a_name_of_no_text": b"K\x01K\x02\x93",
    "a_call_of_a_text": text("os.system") + b")R",
    "a_call_of_a_storage_type": named("torch", "FloatStorage") + b")R",
    "a_call_without_a_tuple": named("collections", "OrderedDict") + b"]R",
    "setstate_of_a_function": named("torch._utils", "_rebuild_tensor_v2") + b"}" + text("__code__") + b"K\x00sb",
    "setstate_of_a_list": b"]}" + text("append") + b"K\x00sb",
    "setstate_of_a_number": b"K\x01}" + text("__class__") + b"K\x00sb",
    "setitem_of_a_function": named("torch._utils", "_rebuild_tensor_v2") + text("a") + b"K\x00s",
    "append_to_a_function": named("torch._utils", "_rebuild_tensor_v2") + b"K\x00a",
    "a_persistent_id": text("0") + b"Q",
    "a_mark_too_many": b"(((.",
    "nothing_on_the_stack": b"RRR",
    "a_memo_that_is_not_there": b"h\x07",
    "an_unknown_instruction": b"\xfe",
    "bytes_of_a_terabyte": b"\x8e" + (1 << 40).to_bytes(8, "little"),
    "bytes_of_more_than_memory_has_addresses": b"\x8e" + (1 << 63).to_bytes(8, "little"),
    "a_frame_of_a_terabyte": b"\x95" + (1 << 40).to_bytes(8, "little") + b"N",
    "a_memo_of_gigabytes": b"Nr\xff\xff\xff\x7f",
    "a_number_of_gigabytes": b"\x8b\xff\xff\xff\x7f",
    "endless_instructions": b"N" * 1_100_000,
    "tuples_in_tuples": b")" + b"\x85" * 500_000,
    "a_deep_key": b"})" + b"\x85" * 200_000 + b"Ns",
    "a_deep_name_of_storage": b"})" + b"\x85" * 200_000 + b"Q",
}.items():

    def make(_: Path, opcodes: bytes = opcodes) -> bytes:
        return program(opcodes)

    make.__name__ = title
    hostile(make)


# Damage.


@hostile
def empty(_: Path) -> bytes:
    return b""


@hostile
def a_text(_: Path) -> bytes:
    return b"<!DOCTYPE html><title>404</title>\n"


@hostile
def a_scan(canary: Path) -> bytes:
    path = canary.with_name("scan.nii.gz")
    nib.save(nifti(voxels((6, 6, 6))), path)
    data = path.read_bytes()
    path.unlink()
    return data


def cut(share: float) -> Callable[[Path], bytes]:
    def make(_: Path) -> bytes:
        data = pickled(good())
        return data[: int(len(data) * share)]

    make.__name__ = f"cut_at_{share}"
    return make


for share in (0.001, 0.1, 0.5, 0.9, 0.99999):
    hostile(cut(share))


@hostile
def flipped_name(_: Path) -> bytes:
    return with_bytes(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3", pickled(good()))


@hostile
def flipped_size_of_a_storage(_: Path) -> bytes:
    data = pickled(good())
    at = data.index(b"FloatStorage")
    return with_bytes(data[at : at + 80], data[at : at + 80].replace(b"K", b"M"), data)


@hostile
def a_flipped_weight_in_a_zip(_: Path) -> bytes:
    data = torch_file({"g_ema": {"style.1.weight": torch.full((50,), 1.25)}})
    return with_bytes(b"\x00\x00\xa0\x3f" * 50, b"\x00\x00\xa0\x3f" * 49 + b"\x00\x00\xa1\x3f", data)


# Archives.


def zipped(change: Callable[[zipfile.ZipFile, str], None], compress: bool = False) -> bytes:
    """A torch file with the same content, and what `change` adds."""
    made = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(torch_file(good()))) as old, zipfile.ZipFile(made, "w", kind) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        change(new, old.namelist()[0].split("/")[0])
    return made.getvalue()


@hostile
def zip_slip(_: Path) -> bytes:
    return zipped(lambda z, root: z.writestr(f"{root}/../../canary", b"x"))


@hostile
def zip_slip_to_the_root(canary: Path) -> bytes:
    return zipped(lambda z, _: z.writestr(str(canary), b"x"))


@hostile
def zip_of_two_folders(_: Path) -> bytes:
    return zipped(lambda z, _: z.writestr("other/data.pkl", b"x"))


@hostile
def zip_with_a_link(_: Path) -> bytes:
    def link(z: zipfile.ZipFile, root: str) -> None:
        entry = zipfile.ZipInfo(f"{root}/data/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        z.writestr(entry, "/etc/passwd")

    return zipped(link)


@hostile
def zip_with_one_name_twice(_: Path) -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        return zipped(lambda z, root: z.writestr(f"{root}/data.pkl", b"x"))


@hostile
def zip_bomb(_: Path) -> bytes:
    return zipped(lambda z, root: z.writestr(f"{root}/data/bomb", bytes(50 << 20)), compress=True)


@hostile
def zip_without_a_pickle(_: Path) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as z:
        z.writestr("archive/data/0", b"1234")
    return made.getvalue()


@hostile
def cut_zip(_: Path) -> bytes:
    return torch_file(good())[:-100]


@hostile
def zip_that_lacks_its_numbers(_: Path) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(good()))) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, b"1234" if "/data/" in entry.filename else old.read(entry))
    return made.getvalue()


# Sizes that lie. A tensor of one number, of which one is made of `size` and `stride`.


def stretched(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Content:
    content, one = good(), torch.zeros(1)

    class Stretched:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (one.untyped_storage_(), offset, size, stride, False, {})  # type: ignore[attr-defined]

    one.untyped_storage_ = one.storage  # type: ignore[attr-defined]
    content["G_ema"].child("mapping.fc0")["_parameters"]["weight"] = Stretched()
    return content


for title, shape in {
    "a_number_that_is_repeated": ((5, 1 << 30), (0, 0)),
    "a_tensor_beyond_its_numbers": ((5, 6), (6, 1)),
    "a_tensor_of_a_yottabyte": ((1 << 39, 1 << 39), (0, 0)),
    "a_tensor_at_an_offset": ((1, 1), (1, 1), 1),
    "a_tensor_of_negative_size": ((-5, 6), (6, 1)),
    "a_tensor_of_negative_stride": ((1, 1), (-1, 1)),
    "a_tensor_of_a_thousand_axes": ((1,) * 1000, (1,) * 1000),
    "an_empty_tensor": ((0, 6), (6, 1)),
}.items():

    @pytest.mark.filterwarnings("ignore")
    def tensor(_: Path, shape: tuple[Any, ...] = shape) -> bytes:
        return pickled(stretched(*shape))

    tensor.__name__ = title
    hostile(tensor)


# Trees that are no networks.


def changed(title: str, change: Callable[[Content], object]) -> None:
    def make(_: Path) -> bytes:
        content = good()
        change(content)
        return pickled(content)

    make.__name__ = title
    hostile(make)


def deep(content: Content) -> None:
    inner = Kept("Module", {})
    for _ in range(100):
        inner = Kept("Module", {"_modules": {"m": inner}})
    content["G_ema"] = inner


def bushy(content: Content) -> None:
    inner = Kept("Module", {"_parameters": {"a": torch.zeros(1)}})
    for _ in range(8):
        inner = Kept("Module", {"_modules": {str(i): inner for i in range(20)}})
    content["G_ema"] = inner


def cyclic(content: Content) -> None:
    state = content["G_ema"].meta["state"]
    state["_modules"]["again"] = Kept("Module", {"_modules": state["_modules"]})


def settings_without_end(content: Content) -> None:
    settings: Content = {}
    settings["mapping_kwargs"] = settings["synthesis_kwargs"] = settings
    content["G_ema"].meta["state"]["_init_kwargs"] = settings


def setting(network: str = "G_ema", **settings: Any) -> Callable[[Content], None]:
    return lambda content: content[network].meta["state"]["_init_kwargs"].update(settings)


def weight(name: str, value: Any, network: str = "G_ema") -> Callable[[Content], None]:
    path, _, last = name.rpartition(".")
    return lambda content: content[network].child(path)["_parameters"].update({last: value})


def drop(path: str, last: str, group: str = "_parameters", network: str = "G_ema") -> Callable[[Content], object]:
    return lambda content: content[network].child(path)[group].pop(last)


def without_images(content: Content) -> None:
    """The architecture "orig": an image only from the last block."""
    for block in ("b4", "b8"):
        del content["G_ema"].child(f"synthesis.{block}")["_modules"]["torgb"]


changed("deep_modules", deep)
changed("a_module_in_many_places", bushy)
changed("a_module_in_itself", cyclic)
changed("settings_in_themselves", settings_without_end)
changed("no_module_for_a_module", lambda c: c["G_ema"].child("mapping")["_modules"].update(fc0=None))
changed("no_dictionary_of_modules", lambda c: c["G_ema"].child("mapping").update(_modules=[1]))
changed("no_generator", lambda c: c.pop("G_ema"))
changed("a_dictionary_for_the_generator", lambda c: c.update(G_ema={}))
changed("a_list_for_the_discriminator", lambda c: c.update(D=[1]))
changed("activation", setting(activation="relu"))
changed("activation_nested", setting(synthesis_kwargs={"activation": "swish"}))
changed("resample_filter", setting(synthesis_kwargs={"resample_filter": [1, 2, 1]}))
changed("lr_multiplier", setting(mapping_kwargs={"lr_multiplier": 0.1}))
changed("use_noise", setting(synthesis_kwargs={"use_noise": False}))
changed("architecture_orig", setting(synthesis_kwargs={"architecture": "orig"}))
changed("architecture_orig_unsaid", without_images)
changed("architecture_of_the_discriminator", setting("D", architecture="skip"))
changed("a_setting_of_stylegan3", setting(magnitude_ema_beta=0.999))
changed("a_setting_with_a_terminal_code", setting(**{"\x1b[2J\nspoof": 1}))
changed("group_of_none", setting("D", epilogue_kwargs={"mbstd_group_size": None}))
changed("channels_of_deviation", setting("D", epilogue_kwargs={"mbstd_num_channels": 2}))
changed("positional_text", lambda c: c["G_ema"].meta["state"].update(_init_args=("relu",)))
changed(
    "another_filter", lambda c: c["G_ema"].child("synthesis.b8")["_buffers"].update(resample_filter=torch.ones(4, 4))
)
changed("stylegan3", drop("synthesis.b4", "const"))
changed("missing_weight", drop("synthesis.b8.conv0", "weight"))
changed("missing_noise", drop("synthesis.b8.conv0", "noise_const", "_buffers"))
changed("missing_mean", drop("mapping", "w_avg", "_buffers"))
changed("missing_mapping", lambda c: c["G_ema"].meta["state"]["_modules"].pop("mapping"))
changed("missing_block", lambda c: c["G_ema"].child("synthesis")["_modules"].pop("b8"))
changed("missing_weight_of_the_discriminator", drop("b8.skip", "weight", network="D"))
changed("discriminator_of_another_size", drop("b16.conv0", "weight", network="D"))
changed("a_weight_too_many", weight("mapping.fc0.more", torch.zeros(3)))
changed("wrong_shape", weight("synthesis.b8.conv0.weight", torch.zeros(6, 7, 3, 3)))
changed("wrong_shape_of_the_constant", weight("synthesis.b4.const", torch.zeros(8, 4)))
changed("wide_without_its_weights", weight("synthesis.b8.conv1.weight", torch.zeros(100_000, 1, 3, 3)))
changed("nan", weight("synthesis.b8.conv0.bias", torch.full((6,), float("nan"))))
changed("infinite", weight("synthesis.b8.conv0.bias", torch.full((6,), float("inf"))))
changed("infinite_as_float32", weight("synthesis.b8.conv0.bias", torch.full((6,), 1e300, dtype=torch.float64)))
changed("whole_numbers", weight("synthesis.b8.conv0.bias", torch.zeros(6, dtype=torch.int32)))
changed("bfloat16", weight("synthesis.b8.conv0.bias", torch.zeros(6, dtype=torch.bfloat16)))
changed("no_tensor", weight("synthesis.b8.conv0.bias", [0.0] * 6))


@hostile
def a_pickle_of_tensorflow(_: Path) -> bytes:
    return program(b"cdnnlib.tflib.network\nNetwork\n)\x81")


def outcome(data: bytes, folder: Path, capsys: pytest.CaptureFixture[str], name: str = "net.pkl") -> str:
    """The one line with which the command refuses `data`; asserts that nothing else came of it."""
    (folder / name).write_bytes(data)
    before = sorted(folder.iterdir())
    modules = set(sys.modules)
    assert cli.main(["prior", "import", str(folder / name), "--out", str(folder / "out")]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.isprintable()
    assert line.startswith("brgm-med: ")
    assert name in line
    assert len(line) < 600
    assert sorted(folder.iterdir()) == before
    assert not {"canary_module", "torch_utils", "dnnlib", "torch_utils.persistence"} & (set(sys.modules) - modules)
    return line


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose file `canary` is made by whatever a hostile file runs, and a module that would do so too."""
    canary = tmp_path / "canary"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "canary_module.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return tmp_path


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_what_is_hostile_or_damaged_is_refused(trap: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    data = HOSTILE[kind](trap / "canary")
    started = time.monotonic()
    outcome(data, trap, capsys)
    assert time.monotonic() - started < 20
    assert not (trap / "canary").exists()


def test_the_payloads_are_real(trap: Path) -> None:
    """Python's own unpickler runs them: the canary is one that sings."""
    canary = trap / "canary"
    for kind in ("os_system", "builtins_eval_alone", "importlib_alone"):
        data = {
            "os_system": HOSTILE["os_system"](canary),
            "builtins_eval_alone": pickle.dumps(Call(eval, f"open({str(canary)!r}, 'w').close()")),
            "importlib_alone": pickle.dumps(Call(importlib.import_module, "canary_module")),
        }[kind]
        pickle.loads(data)
        assert canary.exists(), kind
        canary.unlink()
        with pytest.raises(UNREADABLE):
            parse(data)
        assert not canary.exists()
    sys.modules.pop("canary_module")


def test_the_reason_is_said(trap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        "os_system_in_the_state": "posix.system",
        "inst": "INST",
        "activation": "'activation' must be lrelu",
        "missing_weight": "lacks synthesis.b8.conv0.weight",
        "wrong_shape": "[6, 7, 3, 3] instead of [6, 8, 3, 3]",
        "nan": "not finite",
        "stylegan3": "no StyleGAN2",
        "a_pickle_of_tensorflow": "dnnlib.tflib.network.Network",
        "zip_slip": "lead out of it",
        "empty": "neither a pickle",
        "a_scan": "neither a pickle",
        "cut_at_0.5": "cannot be read",
    }
    for kind, words in said.items():
        assert words in outcome(HOSTILE[kind](trap / "canary"), trap, capsys), kind


@pytest.mark.parametrize("kind", sorted(k for k in HOSTILE if any(w in k for w in ("byte", "memo", "bomb", "repeat"))))
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_lying_sizes_cost_little_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(HOSTILE[kind](tmp_path / "canary"))
    tracemalloc.start()
    try:
        with pytest.raises(PriorError):
            foreign.load(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_one_storage_many_times_costs_no_memory() -> None:
    """Ten megabytes of numbers, named two thousand times: 20 GB, if each were a copy."""
    inner = _storage_bytes(2_500_000)
    again = b"]" + b"h\x00h\x01\x85Ra" * 2000
    data = program(
        named("torch.storage", "_load_from_bytes") + b"q\x00",
        b"B" + len(inner).to_bytes(4, "little") + inner + b"q\x01",
        again,
    )
    tracemalloc.start()
    try:
        assert len(parse(data)) == 2000
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def _storage_bytes(count: int) -> bytes:
    """What a tensor's `_load_from_bytes` is called with."""
    found = []

    class Find(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return found.append if name == "_load_from_bytes" else (lambda *_: None)

    Find(io.BytesIO(pickle.dumps(torch.zeros(count), 4))).load()
    (data,) = found
    return bytes(data)


def test_any_flipped_byte_is_refused_or_is_but_a_number(tmp_path: Path) -> None:
    """No damage is anything but a refusal, or another weight: numbers in a pickle have no checksum."""
    path, chance = tmp_path / "net.pkl", random.Random(0)
    made = [pickled(good()), torch_file(good()), torch_file(good(), zipped=False)]
    refused = 0
    for trial in range(240):
        data = bytearray(made[trial % 3])
        for _ in range(chance.choice([1, 1, 5])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data if trial % 9 else data[: chance.randrange(len(data))])
        try:
            foreign.load(path)
        except PriorError:
            refused += 1
    assert refused > 80


def test_junk_ends_in_an_error_that_is_caught() -> None:
    chance = random.Random(1)
    opcodes = bytes(o for o in range(256) if o not in b".") + b"NK)}](\x85\x86Rbhqasu" * 8
    refused = 0
    for _ in range(3000):
        body = bytes(chance.choice(opcodes) for _ in range(chance.randrange(1, 40)))
        try:
            parse(b"\x80\x04" + body + b".")
        except UNREADABLE:
            refused += 1
    assert refused > 2000


# Safetensors, and what is no file.


def test_what_is_no_safetensors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    huge = (1 << 60).to_bytes(8, "little") + b"{}"
    for data in (b"", b"{}", huge, whole[:-1], whole[:10], pickled(good())):
        assert "no safetensors" in outcome(data, tmp_path, capsys, "net.safetensors")
    (tmp_path / "net.json").write_text("{}")
    assert "no StyleGAN2" in outcome(whole, tmp_path, capsys, "net.safetensors")


ODD_TENSORS = {
    "no blocks": {"synthesis.b4.const": torch.zeros(8, 4, 4)},
    "a constant of another base": {
        "synthesis.b5.const": torch.zeros(8, 4, 4),
        "synthesis.b4.conv1.weight": torch.zeros(1),
    },
    "no axes": {"synthesis.b4.const": torch.zeros(())},
    "no conv1": {
        "synthesis.b4.const": torch.zeros(8, 4, 4),
        "synthesis.b4.torgb.weight": torch.zeros(1, 8, 1, 1),
        "synthesis.b4.conv1.affine.weight": torch.zeros(8, 8),
        "mapping.fc0.weight": torch.zeros(8, 8),
    },
}


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_tensors_of_no_network_are_refused(name: str, tmp_path: Path) -> None:
    save_file(ODD_TENSORS[name], tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text("{}")
    with pytest.raises(PriorError, match=r"net\.safetensors: "):
        foreign.load(tmp_path / "net.safetensors")


@pytest.mark.parametrize("name", ["net.pkl", "net.pt", "net.safetensors"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    for make in (lambda _: None, Path.mkdir):
        make(tmp_path / name)
        with pytest.raises(PriorError, match=name):
            foreign.load(tmp_path / name)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PriorError, match="fifo"):
        foreign.load(tmp_path / "fifo")
