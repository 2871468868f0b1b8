"""Archives of the tests: listeners on loopback that keep what they are sent."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext

EVERY_SYNTAX = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
Answering = Callable[[Any], int]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def listening(
    store: Answering,
    syntaxes: list[str] = EVERY_SYNTAX,
    classes: tuple[str, ...] = (MRImageStorage, CTImageStorage),
    required: str = "",
) -> Iterator[str]:
    """An archive that answers a C-STORE as `store` does; gives its AET@host:port."""
    entity = AE("ARCHIVE")
    entity.require_called_aet = bool(required)
    for sop_class in classes:
        entity.add_supported_context(sop_class, syntaxes)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield f"{required or 'ARCHIVE'}@127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


class Keeping:
    """Stores what comes, answering `codes` first and then success."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.kept: dict[str, bytes] = {}
        self.contexts: list[PresentationContext] = []

    def __call__(self, event: Any) -> int:
        if self.codes:
            return self.codes.pop(0)
        self.kept[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        self.contexts.append(event.context)
        return 0


def body(path: Path) -> bytes:
    """The bytes of a file after its preamble and file meta information."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("IM*") if p.is_file()]
