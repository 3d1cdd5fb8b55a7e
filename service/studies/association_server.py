"""pynetdicom's server with a bound on connections: it counts associations alone, and only where one is asked for."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import AE
from pynetdicom.events import Event
from pynetdicom.transport import AssociationServer, ThreadedAssociationServer

_WAITING = 8  # connections beyond the associations: they hear that there are too many, or are silent for a while
_MAX_PDU = 2**20  # bytes: we ask for data in 16 KiB; a request that names everything that DICOM has is some 300 KiB


class BoundedServer(ThreadedAssociationServer):
    """Closes at once what comes while there are as many connections as may be; none may be silent for ever."""

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        """Begin an association without a thread for the way there, so that the next connection finds it counted."""
        AssociationServer.process_request(self, request, client_address)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401 - as socketserver has it
        """Whether there is room for one more; each connection has an association's thread from its beginning on."""
        return len(self.active_associations) < self.ae.maximum_associations + _WAITING

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """The next connection. A PDU that stops in its middle would keep its thread for ever."""
        connection, address = super().get_request()
        connection.settimeout(self.ae.network_timeout)
        return connection, address


class BoundedEntity(AE):
    """An application entity whose servers are bounded."""

    def make_server(self, *arguments: Any, **options: Any) -> ThreadedAssociationServer:  # noqa: ANN401 - as AE has it
        """As `AE.make_server`, of one class."""
        return super().make_server(*arguments, **options | {"server_class": BoundedServer})


def bound_pdus(event: Event) -> None:
    """EVT_CONN_OPEN: close the connection where a PDU is to be longer; pynetdicom would keep up to 4 GiB of it."""
    connection: Any = event.assoc.dul.socket
    receive = connection.recv

    def bounded(size: int) -> bytearray:
        if size > _MAX_PDU:
            raise OSError("a PDU is too long")
        return receive(size)

    connection.recv = bounded
