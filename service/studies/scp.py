"""The second door: a C-STORE SCP (PS3.4 annex B, PS3.7 9.1.1) for modalities and archives without DICOMweb.

A success status means that the instance is on disk and part of a job. The AE titles of callers are no secret and no
proof: on a network that is not trusted, TLS with client certificates (PS3.15 annex B) is.
"""

from __future__ import annotations

import logging
import ssl
from io import BytesIO
from typing import TYPE_CHECKING, Any

from service.errors import Overloaded, TooLarge, TooManyRequests
from service.observability import INSTANCES, hashed_uid, logger
from service.settings import ScpSettings
from service.studies.reception import Reception
from service.studies.rows import StudyRequest
from service.studies.store import StudyStore
from service.studies.upload import HeldUpload

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.events import Event
    from pynetdicom.transport import ThreadedAssociationServer

_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000  # PS3.4 table B.2-1
_DEFLATED = "1.2.840.10008.1.2.1.99"  # pydicom inflates it whole and without a limit to read its UIDs
_GREETING_S = 10.0  # a caller asks for its association as soon as it is connected
_MIB = 2**20
HOLDER = "c-store:{}"  # of what comes through this door, by its sender's address: no HTTP caller's share of the queue


class Scp:
    """The server, in threads of its own.

    Args:
        settings: see there.
        store: the study queue.
        site_key: of hashed UIDs.
    """

    def __init__(self, settings: ScpSettings, store: StudyStore, site_key: bytes) -> None:
        self._settings, self._store, self._site_key = settings, store, site_key
        self._reception = Reception(
            self._open,
            str(store.folder),
            min_free=settings.min_free_mib * _MIB,
            quiet_s=settings.quiet_s,
            settle_s=settings.settle_s,
        )
        self._received: dict[int, int] = {}  # bytes since the last instance, by association
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen. Raises OSError where the port is taken or a certificate cannot be read."""
        from pynetdicom import evt

        from service.studies.association_server import bound_associations, bound_pdus

        listeners: list[Any] = [
            (evt.EVT_C_ECHO, lambda event: _SUCCESS),  # pyright: ignore[reportUnknownLambdaType]
            (evt.EVT_C_STORE, self._store_instance),
            (evt.EVT_CONN_OPEN, bound_pdus),
            (evt.EVT_REQUESTED, bound_associations),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_CONN_CLOSE, self._leave),
            (evt.EVT_RELEASED, self._leave),
            (evt.EVT_ABORTED, self._leave),
        ]
        settings, entity = self._settings, _entity(self._settings)
        address, context = (settings.host, settings.port), _tls(settings)
        try:
            self._server = entity.start_server(address, block=False, ssl_context=context, evt_handlers=listeners)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "{}:{}".format(*address)) from None

    def stop(self) -> None:
        """Abort what goes on; what was confirmed stays."""
        if self._server is not None:
            self._server.ae.shutdown()
            self._server = None
        self._reception.close()

    def _open(self, series: str, sender: str) -> HeldUpload:
        settings = self._settings
        options = settings.options.model_dump(mode="json")
        request = StudyRequest(target=settings.target, options=options, holder=HOLDER.format(sender))
        return HeldUpload(
            self._store,
            request,
            hold=settings.quiet_s,
            max_bytes=settings.max_series_mib * _MIB,
            label=series[-12:],
        )

    def _store_instance(self, event: Event) -> int:
        """EVT_C_STORE: answers with a status, never raises."""
        status = self._status_of(event)
        outcome = {_SUCCESS: "stored", _CANNOT_UNDERSTAND: "unreadable"}.get(status, "refused")
        INSTANCES.labels("c-store", outcome).inc()
        return status

    def _status_of(self, event: Event) -> int:
        self._received.pop(id(event.assoc), None)
        try:
            content = event.encoded_dataset()
            series = self._key_of(content)
        except Exception:  # noqa: BLE001 - whatever pydicom makes of a damaged data set; its text may quote it
            return _CANNOT_UNDERSTAND
        try:
            self._reception.take(id(event.assoc), series, content, event.assoc.requestor.address)
        except (Overloaded, TooLarge, TooManyRequests) as refusal:
            logger.warning("an instance of series %s was refused: %s", series[-12:], refusal.kind)
            return _OUT_OF_RESOURCES
        except Exception as error:  # noqa: BLE001 - disk or database: the sender must keep the instance
            logger.error("an instance of series %s was not stored: %s", series[-12:], type(error).__name__)
            return _OUT_OF_RESOURCES
        return _SUCCESS

    def _key_of(self, content: bytes) -> str:
        """Hashed study and series UID. Raises where a UID is missing or the data set is damaged."""
        from pydicom import dcmread

        tags = ["StudyInstanceUID", "SeriesInstanceUID"]
        ds = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=tags)
        study, series = str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)
        if not study or not series:
            raise ValueError
        return f"{hashed_uid(study, self._site_key)}.{hashed_uid(series, self._site_key)}"

    def _count(self, event: Event) -> None:
        """EVT_DATA_RECV: pynetdicom keeps an instance in memory until it is complete, however large it becomes."""
        association = id(event.assoc)
        received = self._received.get(association, 0) + len(event.data)
        self._received[association] = received
        if received > self._settings.max_instance_mib * _MIB:
            INSTANCES.labels("c-store", "refused").inc()
            logger.warning("an association was aborted: its instance is too large")
            event.assoc.abort(block=False)

    def _leave(self, event: Event) -> None:
        self._received.pop(id(event.assoc), None)
        self._reception.leave(id(event.assoc))


def _entity(settings: ScpSettings) -> ApplicationEntity:
    from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config
    from pynetdicom.sop_class import Verification  # pyright: ignore[reportAttributeAccessIssue] - made at import

    from service.studies.association_server import BoundedEntity

    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it logs AE titles, addresses and UIDs
    entity = BoundedEntity(settings.ae_title, settings.associations)
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.callers)
    entity.network_timeout = entity.dimse_timeout = settings.network_s
    entity.acse_timeout = min(settings.network_s, _GREETING_S)
    entity.add_supported_context(Verification)
    syntaxes = [syntax for syntax in ALL_TRANSFER_SYNTAXES if syntax != _DEFLATED]
    for context in AllStoragePresentationContexts:
        if context.abstract_syntax is not None and _is_source(context.abstract_syntax.name):
            entity.add_supported_context(context.abstract_syntax, syntaxes)
    return entity


def _is_source(name: str) -> bool:
    """Images, but no captures: an archive that forwards whatever is new would send our own results round for ever."""
    return "Image Storage" in name and "Secondary Capture" not in name


class _LateHandshake(ssl.SSLContext):
    """pynetdicom wraps connections in the thread that accepts them: a silent caller would keep all others out."""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401 - as ssl has it
        """The handshake comes with the first bytes read, in the thread of the association."""
        return super().wrap_socket(*arguments, **options | {"do_handshake_on_connect": False})


def _tls(settings: ScpSettings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = _LateHandshake(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:  # it does not say of what
        raise OSError(error.errno, error.strerror, f"{settings.certificate}, {settings.key}") from None
    if settings.ca is not None:
        try:
            context.load_verify_locations(settings.ca)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(settings.ca)) from None
        context.verify_mode = ssl.CERT_REQUIRED if settings.client_certificates else ssl.CERT_OPTIONAL
    return context
