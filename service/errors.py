"""Everything that the service refuses, as one tree.

    RadiolucentError                     500
    ├── RequestError                     400   the client can put it right
    │   ├── InvalidParameter             422
    │   ├── UnknownModel                 404
    │   ├── WrongTask                    422   the model does something else than what is asked of it
    │   ├── UnknownMethod                422
    │   ├── UnknownTarget                422
    │   ├── UnknownJob                   404
    │   ├── UnknownSource                422   neither a configured archive nor under one's address
    │   ├── BrokenUpload                 400   a multipart body or a zip that ends early or contradicts itself
    │   ├── BudgetTooSmall               422
    │   ├── DeadlineTooShort             504   there is no explanation yet; more time, or a smaller budget
    │   ├── TooSlow                      422   for an answer at once; a job takes it
    │   ├── TooManyImages                413
    │   ├── TooLarge                     413
    │   ├── UploadTooSlow                408   a body that stands still
    │   ├── CompressedBody               415   Content-Encoding: files are compressed in themselves
    │   ├── NotDeidentifiable            422   what must not leave the house cannot be taken out
    │   ├── UnknownStudy                 404   a reader study, or a reader of it
    │   ├── StudyConflict                409   another reader study has this name, or it is past this step
    │   ├── RunConflict                  409   a backfill's folder that is in use, or holds another run's answers
    │   ├── UnknownReader                401   a code that opens no reader study
    │   ├── UnknownReading               404   not this reader's, or not begun
    │   ├── AlreadyAnswered              409   a reader's answer is final
    │   ├── Unauthenticated              401   no key or token, or none that holds
    │   ├── NotAllowed                   403   the key or the token is not for this
    │   ├── NotLocal                     403   nobody is asked who they are, and this comes from another machine
    │   ├── TooManyRequests              429   this caller's share is used up; says when to come back
    │   └── UnreadableImage              422   fails alone; the other images of the request are answered
    │       ├── UnsupportedFormat        422
    │       ├── CorruptImage             422
    │       ├── UnsupportedTransferSyntax 422
    │       ├── NoPixelData              422
    │       ├── SlowImage                422   would take its decoder far longer than its pixels are worth
    │       └── TooManyPixels            422
    ├── BundleError                      500   a model bundle that is not served
    │   ├── BundleDigestMismatch         500
    │   ├── BundleSchemaMismatch         500
    │   ├── BundleSignatureMismatch      500
    │   └── GoldenSampleMismatch         500
    ├── RulesError                       500   a rules file that cannot be used, at start
    ├── AccessError                      500   who may ask is not said, or in a file that cannot be used; at start
    ├── DatabaseUnusable                 500   a database that cannot be opened; at start
    ├── IdentityUnavailable              503   the provider whose tokens are taken does not answer
    ├── RemoteError                      502   an archive that the service fetches from or stores to
    │   ├── RemoteUnavailable            502   may pass: tried again
    │   ├── RemoteMissing                502   not there, or not yet: tried again for some minutes
    │   └── RemoteRefused                502   will not pass by itself
    ├── ModelFailed                      500   fails alone; the other images of the request are answered
    ├── StageLost                        500   what an earlier stage of a study left on disk is gone or damaged
    ├── Poisoned                         500   a study that takes its worker down
    ├── Cancelled                        500   nobody waits for the answer any more; no client sees it
    ├── DeadlinePassed                   504   the caller's own deadline; nothing is computed that comes too late
    ├── AnswerTooLate                    504   the service's own limit for an answer to begin
    ├── StorageFull                      507   no room on the disk for what must be kept; nothing was kept
    └── Overloaded                       503

`str(error)` is written for the client: it never holds file names, file contents, patient data or DICOM values;
the names of the standard's transfer syntaxes are the one exception.
"""

from __future__ import annotations

from typing import ClassVar


class RadiolucentError(Exception):
    """Root of the tree.

    Attributes:
        status: the HTTP status that the error becomes.
        kind: slug for `type` of a problem body (RFC 9457) and for the label of the error counter.
        title: short text for `title` of a problem body, the same for every occurrence.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str | None = None) -> None:
        """Keep `detail`, what happened this time; the title stands in where there is nothing to add."""
        super().__init__(detail or self.title)

    @property
    def detail(self) -> str:
        """What happened this time, for `detail` of a problem body."""
        return str(self)


class RequestError(RadiolucentError):
    """The request cannot be understood."""

    status = 400
    kind = "bad-request"
    title = "The request cannot be understood"


class InvalidParameter(RequestError):
    """A field of the request is missing or holds a value that is not allowed."""

    status = 422
    kind = "invalid-parameter"
    title = "A parameter is not valid"


class UnknownModel(RequestError):
    """No served bundle has this id."""

    status = 404
    kind = "unknown-model"
    title = "No such model"


class WrongTask(RequestError):
    """The model does something else: a classifier draws no outline, a segmentation model predicts no class."""

    status = 422
    kind = "wrong-task"
    title = "The model is for another task"


class UnknownMethod(RequestError):
    """The model does not offer this explanation method."""

    status = 422
    kind = "unknown-method"
    title = "The model does not offer this explanation method"


class UnknownTarget(RequestError):
    """The model has no class of this name."""

    status = 422
    kind = "unknown-target"
    title = "The model has no such target class"


class UnknownJob(RequestError):
    """No job has this id, or it expired."""

    status = 404
    kind = "unknown-job"
    title = "No such job"


class UnknownSource(RequestError):
    """No archive of this name is configured, or the address is not under that of one."""

    status = 422
    kind = "unknown-source"
    title = "No such source is configured"


class BrokenUpload(RequestError):
    """A multipart body or an archive that ends early or contradicts itself."""

    kind = "broken-upload"
    title = "The upload is damaged or incomplete"


class BudgetTooSmall(RequestError):
    """The explanation method cannot work with so few evaluations."""

    status = 422
    kind = "budget-too-small"
    title = "The budget is too small for this method"


class DeadlineTooShort(RequestError):
    """The deadline passed before the explanation method had a result."""

    status = 504
    kind = "deadline-too-short"
    title = "The deadline is too short for this method"


class TooSlow(RequestError):
    """The explanation would take longer than a client may be kept waiting."""

    status = 422
    kind = "too-slow"
    title = "The explanation takes too long to wait for"


class TooManyImages(RequestError):
    """More images than one request may hold."""

    status = 413
    kind = "too-many-images"
    title = "Too many images in one request"


class TooLarge(RequestError):
    """More bytes than one request or one file may hold."""

    status = 413
    kind = "too-large"
    title = "The upload is too large"


class UploadTooSlow(RequestError):
    """A request whose body stands still."""

    status = 408
    kind = "upload-too-slow"
    title = "The upload is too slow"


class CompressedBody(RequestError):
    """A request whose body has a content coding, such as gzip."""

    status = 415
    kind = "compressed-body"
    title = "The body is compressed"


class NotDeidentifiable(RequestError):
    """An object that cannot be made safe to leave the house."""

    status = 422
    kind = "not-deidentifiable"
    title = "The object cannot be de-identified"


class UnknownStudy(RequestError):
    """No reader study has this name, or it has no such reader."""

    status = 404
    kind = "unknown-study"
    title = "No such reader study"


class StudyConflict(RequestError):
    """A reader study that is not what the coordinator takes it for."""

    status = 409
    kind = "study-conflict"
    title = "The reader study is another one, or past this step"


class RunConflict(RequestError):
    """The folder of a backfill is in use, or holds the answers to another question."""

    status = 409
    kind = "run-conflict"
    title = "The folder belongs to another run"


class UnknownReader(RequestError):
    """The code opens no reader study."""

    status = 401
    kind = "unknown-reader"
    title = "The code is not valid"


class UnknownReading(RequestError):
    """No reading of this reader has this id, or it was not begun."""

    status = 404
    kind = "unknown-reading"
    title = "No such reading"


class AlreadyAnswered(RequestError):
    """The case has an answer that says something else."""

    status = 409
    kind = "already-answered"
    title = "The case is answered"


class Unauthenticated(RequestError):
    """No key or token, or none that holds."""

    status = 401
    kind = "unauthenticated"
    title = "A key or a token is needed"


class NotAllowed(RequestError):
    """The key or the token opens other routes."""

    status = 403
    kind = "not-allowed"
    title = "The key or the token does not allow this"


class NotLocal(RequestError):
    """Nobody is asked who they are here, so that only this machine is answered."""

    status = 403
    kind = "not-local"
    title = "The service answers this machine only"


class TooManyRequests(RequestError):
    """This caller's share is used up."""

    status = 429
    kind = "too-many-requests"
    title = "Too many requests of this caller"

    def __init__(self, detail: str, retry_after: float) -> None:
        """Keep the seconds after which there is room again."""
        super().__init__(detail)
        self.retry_after = retry_after


class UnreadableImage(RequestError):
    """A file that gives no image."""

    status = 422
    kind = "unreadable-image"
    title = "The image cannot be read"


class UnsupportedFormat(UnreadableImage):
    """Neither PNG nor JPEG nor DICOM, or a kind of them that is not read."""

    kind = "unsupported-format"
    title = "The image format is not supported"


class CorruptImage(UnreadableImage):
    """A known format whose content is damaged, truncated or contradicts itself."""

    kind = "corrupt-image"
    title = "The image is damaged"


class UnsupportedTransferSyntax(UnreadableImage):
    """A DICOM transfer syntax that no installed decoder reads."""

    kind = "unsupported-transfer-syntax"
    title = "The DICOM transfer syntax is not supported"


class NoPixelData(UnreadableImage):
    """A DICOM instance without pixel data, such as a report."""

    kind = "no-pixel-data"
    title = "The DICOM instance holds no pixel data"


class TooManyPixels(UnreadableImage):
    """A frame or a file that would decode to more than the service holds in memory."""

    kind = "too-many-pixels"
    title = "The image has too many pixels"


class SlowImage(UnreadableImage):
    """A file whose decoding takes far longer than its pixels are worth, as no honest encoder writes it."""

    kind = "slow-image"
    title = "The image takes too long to decode"


class BundleError(RadiolucentError):
    """A model bundle that cannot be served."""

    kind = "bundle"
    title = "The model bundle cannot be used"


class BundleDigestMismatch(BundleError):
    """A file of the bundle is not the one that the manifest names."""

    kind = "bundle-digest-mismatch"
    title = "A file of the model bundle has the wrong digest"


class BundleSchemaMismatch(BundleError):
    """The manifest is of another schema version or not valid."""

    kind = "bundle-schema-mismatch"
    title = "The manifest of the model bundle does not fit the schema"


class BundleSignatureMismatch(BundleError):
    """None of the keys that must have signed the bundle has."""

    kind = "bundle-signature-mismatch"
    title = "The model bundle is not signed by a known key"


class GoldenSampleMismatch(BundleError):
    """The model does not reproduce the outputs stored with it."""

    kind = "golden-sample-mismatch"
    title = "The model does not reproduce its golden sample"


class RemoteError(RadiolucentError):
    """An archive did not do what it was asked to."""

    status = 502
    kind = "remote"
    title = "The archive failed"


class RemoteUnavailable(RemoteError):
    """The archive cannot be reached, is overloaded, or stopped in the middle; it may work later."""

    kind = "remote-unavailable"
    title = "The archive is not available"


class RemoteMissing(RemoteError):
    """The archive does not have it; it may still be arriving there."""

    kind = "remote-missing"
    title = "The archive does not have it"


class RemoteRefused(RemoteError):
    """The archive refuses, and will refuse again."""

    kind = "remote-refused"
    title = "The archive refuses"


class ModelFailed(RadiolucentError):
    """A model that cannot compute one image, whatever it shares its batch with; `__cause__` says why."""

    kind = "model-failed"
    title = "The model cannot compute this image"


class StageLost(RadiolucentError):
    """What an earlier stage of a study left on disk is gone or damaged."""

    kind = "stage-lost"
    title = "Stored files of the study are gone or damaged"


class RulesError(RadiolucentError):
    """The file that says which model answers which series cannot be used."""

    kind = "rules"
    title = "The rules file cannot be used"


class AccessError(RadiolucentError):
    """Who may ask is not said, or said in a file that cannot be used."""

    kind = "access"
    title = "It is not clear who may ask"


class DatabaseUnusable(RadiolucentError):
    """A database cannot be opened, or its tables not be made."""

    kind = "database"
    title = "The database cannot be used"


class IdentityUnavailable(RadiolucentError):
    """The provider whose tokens are taken does not answer."""

    status = 503
    kind = "identity-unavailable"
    title = "The identity provider does not answer"


class Cancelled(RadiolucentError):
    """Nobody waits for the answer any more."""

    kind = "cancelled"
    title = "Cancelled"


class Overloaded(RadiolucentError):
    """Too much work is waiting; the client may try again.

    Attributes:
        retry_after: seconds after which to try.
    """

    status = 503
    kind = "overloaded"
    title = "The service is overloaded"

    def __init__(self, detail: str | None = None, *, retry_after: float = 1.0) -> None:
        """Keep the seconds."""
        super().__init__(detail)
        self.retry_after = retry_after


class DeadlinePassed(RadiolucentError):
    """The answer would come after the deadline that the caller gave."""

    status = 504
    kind = "deadline-passed"
    title = "The answer would come after the deadline"


class AnswerTooLate(RadiolucentError):
    """Nothing was answered for longer than the service lets anybody wait."""

    status = 504
    kind = "answer-too-late"
    title = "The answer took too long"


class StorageFull(RadiolucentError):
    """There is no room for what must be kept on disk; nothing of the request was kept."""

    status = 507
    kind = "storage-full"
    title = "The service has no room to store this"


class Poisoned(RadiolucentError):
    """A study that takes its worker down."""

    kind = "poisoned"
    title = "The study stops the service"
