"""pynetdicom's server with a bound on connections: it counts associations alone, and only where one is asked for."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationServer, ThreadedAssociationServer

_WAITING = 8  # connections beyond the associations: they hear that there are too many, or are silent for a while


class BoundedServer(ThreadedAssociationServer):
    """Closes at once what comes while there are as many connections as may be; none may be silent for ever."""

    process_request = AssociationServer.process_request  # no thread of its own, so that the next one finds it counted

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
