"""pynetdicom's server with bounds on connections and on what one host has: it counts associations, of all together."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Sequence
from threading import Lock
from threading import enumerate as running_threads
from time import monotonic, sleep
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.transport import AssociationServer, AssociationSocket, ThreadedAssociationServer

_WAITING = 8  # connections beyond the associations: they hear that there are too many, or are silent for a while
_LOCAL_LIMIT = (0x02, 0x03, 0x02)  # PS3.8 table 9-21: transient, by the provider, local limit exceeded
_ENDS_WITHIN = 1.0  # seconds: a thread that has nothing to do any more
_PIECE = 4096  # bytes read at once
_MAX_PDU = 2**20  # bytes: we ask for data in 16 KiB; a request that names everything that DICOM has is some 300 KiB


class BoundedServer(ThreadedAssociationServer):
    """Closes at once what comes while there are as many connections as may be; none may be silent for ever."""

    request_queue_size = 128  # connections that the system keeps until they are looked at
    ae: BoundedEntity

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as pynetdicom has it
        self._lock, self._associations = Lock(), list[Association]()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        """Begin an association without a thread for the way there, so that the next connection finds it counted."""
        AssociationServer.process_request(self, request, client_address)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401 - as socketserver has it
        """Whether its host may have one more; each connection has an association's thread from its beginning on."""
        return _has_room(self.active_associations, client_address[0], self.ae.maximum_associations)

    def takes(self, association: Association) -> bool:
        """Whether its host may have one more association; it is counted from now on."""
        with self._lock:
            self._associations = [each for each in self._associations if not _is_over(each)]
            has_room = _has_room(self._associations, association.requestor.address, self.ae.associations)
            self._associations += [association] if has_room else []
        return has_room

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """The next connection. A PDU that stops in its middle would keep its thread for ever."""
        connection, address = super().get_request()
        connection.settimeout(self.ae.network_timeout)
        return connection, address


class PolledSocket(AssociationSocket):
    """Looks by poll(2) whether something has come.

    pynetdicom's select(2) cannot look after a file beyond the 1,024th, which connections of HTTP may be before it.
    """

    @property
    def ready(self) -> bool:
        """Whether something, or the end, can be read; where the socket is closed already, the association ends."""
        wire: socket.socket | None = self.socket
        if wire is None or not self._is_connected:
            return False
        watched = select.poll()
        try:
            watched.register(wire, select.POLLIN)
            found = bool(watched.poll(0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        return found or (isinstance(wire, ssl.SSLSocket) and wire.pending() > 0)


class BoundedEntity(AE):
    """An application entity whose servers are bounded.

    Args:
        ae_title: its own.
        associations: most at once; a host may have half of what the others leave.
    """

    def __init__(self, ae_title: str, associations: int) -> None:
        super().__init__(ae_title)
        self.associations = associations
        self.maximum_associations = associations + _WAITING  # pynetdicom counts every connection for one

    def make_server(self, *arguments: Any, **options: Any) -> ThreadedAssociationServer:  # noqa: ANN401 - as AE has it
        """As `AE.make_server`, of one class."""
        return super().make_server(*arguments, **options | {"server_class": BoundedServer})

    def shutdown(self) -> None:
        """As `AE.shutdown`, which would abort what has asked for no association yet: its time for that is over."""
        silent: list[Any] = [each for each in self.active_associations if _is_silent(each)]
        for each in silent:
            each.dul.event_queue.put("Evt18")  # closes the connection
            each.dul.to_user_queue.put(None)
        end = monotonic() + _ENDS_WITHIN
        while not set(silent).isdisjoint(running_threads()) and monotonic() < end:  # one may not have begun: no join
            sleep(0.005)
        super().shutdown()


def _has_room(taken: Sequence[Association], address: str, room: int) -> bool:
    """Whether the host at an address may have one more: it may have half of what the others leave, and one at least."""
    own = sum(each.requestor.address == address for each in taken)
    return own < room - len(taken)


def _is_silent(association: Any) -> bool:  # noqa: ANN401 - its state has no type
    """Whether it is a connection that has asked for nothing; as long as that is new, it is idle (PS3.8 table 9-10)."""
    return association.requestor.primitive is None and association.dul.state_machine.current_state in ("Sta1", "Sta2")


def _is_over(association: Association) -> bool:
    ended = association.is_released or association.is_aborted or association.is_rejected
    return ended or not association.is_alive()


def bound_associations(event: Event) -> None:
    """EVT_REQUESTED: reject the association where its host may have no more; it may come again."""
    association: Any = event.assoc
    if not association._server.takes(association):
        association.acse.send_reject(*_LOCAL_LIMIT)
        association.kill()  # once it is told


def bound_pdus(event: Event) -> None:
    """EVT_CONN_OPEN: close the connection where a PDU is to be longer, or is too long on its way.

    pynetdicom would keep up to 4 GiB of it, and wait for every further byte as if it were the first.
    """
    association: Any = event.assoc
    connection: Any = association.dul.socket
    connection.__class__ = PolledSocket  # pynetdicom cannot be told

    def bounded(size: int) -> bytearray:
        if size > _MAX_PDU:
            raise OSError("a PDU is too long")
        seconds = association.network_timeout if association.is_established else association.acse_timeout
        end, received, wire = monotonic() + seconds, bytearray(), connection.socket
        while len(received) < size:
            if (left := end - monotonic()) <= 0:
                raise TimeoutError
            wire.settimeout(left)
            piece = wire.recv(min(_PIECE, size - len(received)))
            if not piece:
                break
            received += piece
        wire.settimeout(association.network_timeout)  # for what is sent
        return received

    connection.recv = bounded
