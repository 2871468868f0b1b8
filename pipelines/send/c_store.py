"""C-STORE, as its user only (PS3.4, annex B; PS3.7, section 9.1.1), through pynetdicom."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from brgm_med.errors import UsageError
from brgm_med.pipelines.send.protocol import Answer, Answers, Instance, UnreachableError, answer, seconds_for

if TYPE_CHECKING:
    from pynetdicom.association import Association

MOST_CONTEXTS = 128  # their identifiers are the odd numbers of one byte (PS3.8, section 9.3.2.2)
CONNECT_SECONDS, ANSWER_SECONDS = 10, 120
PATIENCE = 2
"""Seconds for the abortion of an association."""
LARGEST_PDU = 1 << 20
"""Bytes of a protocol data unit that is read: an archive's answers have some hundred."""
AE_TITLE = r"[ -\[\]-~]{1,16}"  # VR AE: no backslash, no control character (PS3.5, section 6.2)


@dataclass(frozen=True)
class Peer:
    """Address of an archive, its application entity title, and ours."""

    title: str
    host: str
    port: int
    calling: str

    @classmethod
    def of(cls, target: str, calling: str) -> Peer:
        """The peer of AET@host:port. Raises UsageError."""
        match = re.fullmatch(r"(.*)@\[?([^@\[\]]+)\]?:(\d{1,5})", target)
        if not match or not 0 < int(match[3]) < 1 << 16:
            raise UsageError(f"--to {target}: must be AET@host:port, or http(s)://host/.../studies")
        for title in (match[1], calling):
            if not re.fullmatch(AE_TITLE, title) or not title.strip():
                raise UsageError(f"{title!r}: is no application entity title (1 to 16 characters, no backslash)")
        return cls(match[1], match[2], int(match[3]), calling)


def send(peer: Peer, instances: Sequence[Instance]) -> Answers:
    """Store instances, each proposed in the one transfer syntax that its file has. Raises UnreachableError."""
    kinds = sorted({(i.sop_class, i.syntax) for i in instances})
    for start in range(0, len(kinds), MOST_CONTEXTS):
        some = kinds[start : start + MOST_CONTEXTS]
        yield from _send_kinds(peer, some, [i for i in instances if (i.sop_class, i.syntax) in some])


def _send_kinds(peer: Peer, kinds: Sequence[tuple[str, str]], instances: Sequence[Instance]) -> Answers:
    """Send over one association, with one presentation context for each kind: (SOP class, transfer syntax)."""
    from pynetdicom import _config

    _config.STORE_SEND_CHUNKED_DATASET = True  # the file's own bytes, never decoded
    association = _associate(peer, kinds)
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    try:
        for instance in instances:
            if (instance.sop_class, instance.syntax) not in accepted:
                yield instance, Answer(False, "refused (its SOP class or transfer syntax is not accepted)")
                continue
            if not association.is_established:
                raise UnreachableError("cut off by the archive", later=True)
            try:
                with _ended_after(_sockets(association), seconds_for(instance, ANSWER_SECONDS)):
                    status = association.send_c_store(instance.path)
            except (OSError, ValueError, AttributeError, RuntimeError):
                # Either the file has changed under our hands or the association ended between the check and the call.
                yield instance, Answer(False, "could not be read or sent", later=True)
                continue
            code = status.get("Status")
            yield instance, Answer(False, "cut off by the archive", later=True) if code is None else answer(code)
        with _ended_after(_sockets(association), ANSWER_SECONDS):
            association.release()
    finally:
        if association.is_established:
            with _ended_after(_sockets(association), PATIENCE):  # else a peer that drips would be waited for
                association.abort()


@contextmanager
def _ended_after(connections: Sequence[Any], seconds: float) -> Iterator[None]:
    """Shut connections down if what is in here takes longer: a peer that drips would never end it."""

    def end() -> None:
        for connection in connections:
            with suppress(OSError, AttributeError):  # it is closed
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _associate(peer: Peer, kinds: Sequence[tuple[str, str]]) -> Association:
    """An association that the peer accepted, though perhaps no context in it. Raises UnreachableError."""
    from pynetdicom import AE, build_context, evt

    sockets: list[Any] = []

    class Entity(AE):
        """An entity that tells which socket is used: pynetdicom 3.0 does not close one whose connection was refused.

        Nor does it send small packets at once, so that every file waited for the peer's delayed acknowledgement.
        """

        def _create_socket(self, *details: Any) -> Any:
            created: Any = super()._create_socket(*details)
            created.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            created.recv = partial(_bounded, created.recv)
            sockets.append(created.socket)
            return created

    where = f"{peer.host}:{peer.port}"
    entity = Entity(peer.calling)
    entity.connection_timeout = CONNECT_SECONDS
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_SECONDS
    opened: list[Any] = []
    try:
        with _ended_after(sockets, CONNECT_SECONDS + ANSWER_SECONDS):
            association = entity.associate(
                peer.host,
                peer.port,
                contexts=[build_context(sop_class, syntax) for sop_class, syntax in kinds],
                ae_title=peer.title,
                evt_handlers=[(evt.EVT_CONN_OPEN, opened.append), (evt.EVT_ABORTED, _wake), (evt.EVT_RELEASED, _wake)],
            )
    except OSError as error:  # the host has no address
        raise UnreachableError(f"for want of a connection to {where} ({error.strerror or error})", True) from error
    reply = association.acceptor.primitive
    if association.is_established or (reply is not None and reply.result == 0):
        return association
    if not opened:
        for left in sockets:
            left.close()
        raise UnreachableError(f"for want of a connection to {where} ({_why_not(peer)})", later=True)
    if association.is_rejected and reply is not None:
        lasting = reply.result == 1  # 1 permanent, 2 transient (PS3.8, section 9.3.4)
        raise UnreachableError(f"because the association was rejected ({reply.reason_str})", later=not lasting)
    raise UnreachableError("because the association was aborted (are both titles right?)", later=True)


def _sockets(association: Association) -> list[Any]:
    """The open socket of an association, if there is one."""
    connection = association.dul.socket
    return [] if connection is None else [connection.socket]


def _bounded(read: Callable[[int], bytearray], length: int) -> bytearray:
    """So many bytes of a connection. Raises OSError, as a broken one does, for more than any answer has."""
    if length > LARGEST_PDU:
        raise OSError(f"a protocol data unit of {length} bytes")
    return read(length)


def _wake(event: Any) -> None:
    """End the wait for an answer of an association that has ended.

    pynetdicom 3.0 does so itself, but where the end comes just before the request its own thread takes that message,
    and the request would wait for ANSWER_SECONDS.
    """
    event.assoc.dimse.msg_queue.put((None, None))


def _why_not(peer: Peer) -> str:
    """The reason of the operating system, which pynetdicom keeps to itself."""
    try:
        with closing(socket.create_connection((peer.host, peer.port), CONNECT_SECONDS)):
            return "it was not taken"
    except OSError as error:
        return error.strerror or str(error)
