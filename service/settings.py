"""Every environment setting of the service, each with the prefix RADIOLUCENT_."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from service.access.settings import PREFIX, AccessSettings
from service.dicom_results.options import DEFAULT_KINDS, Kind, Options
from service.dicomweb.archives import Archive
from service.validation import Strict

_OTHERS = (
    "FEED_",
    "LOAD_",
    "PORT",
    "SERVICE_",
)  # the feed's, the load tests', Kubernetes' of a Service of that name
SHIPPED_MODELS = Path(__file__).resolve().parent.parent / "models"


_TITLE = r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"  # PS3.5 6.2, AE: no backslash, no control characters


class ScpWish(Strict):
    """What is asked of every series that comes by C-STORE.

    Attributes:
        model: id of the bundle that answers; left out, the rules choose.
        method: of the explanation; left out, the model's default.
        target: a class, or `predicted`.
        kinds: DICOM objects to make, as a list; those of `RADIOLUCENT_RESULTS` where left out.
    """

    model: str = ""
    method: str = ""
    target: str = "predicted"
    kinds: tuple[Kind, ...] | None = None


class ScpSettings(Strict):
    """The C-STORE SCP.

    Attributes:
        enabled: whether it listens.
        host: address to listen on.
        port: port to listen on.
        ae_title: callers must call it by this.
        callers: AE titles that may call, at least one.
        associations: most at once; an address may have half of what the others leave. Eight connections more are let
            in, to be told so.
        network_s: seconds that an association may be silent, or a PDU on its way.
        quiet_s: seconds without an instance after which a series is complete, whoever is still connected.
        settle_s: seconds that a series waits for another association to bring more of it.
        max_instance_mib: largest instance.
        max_series_mib: largest series.
        min_free_mib: what must stay free on the disk.
        certificate: in PEM, for TLS; None: without TLS.
        key: of `certificate`, in PEM.
        ca: certificates that sign the callers', in PEM.
        client_certificates: whether callers without a certificate are refused.
        target: archive that the results are stored to, by its name; needed where `enabled`.
        options: what is asked of the series; see `ScpWish`.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=11112, ge=0, le=65535)
    ae_title: str = Field(default="RADIOLUCENT", pattern=_TITLE)
    callers: tuple[str, ...] = ()
    associations: int = Field(default=8, ge=1)
    network_s: float = Field(default=60.0, gt=0)
    quiet_s: float = Field(default=30.0, gt=0)
    settle_s: float = Field(default=3.0, ge=0)
    max_instance_mib: int = Field(default=1024, ge=1)
    max_series_mib: int = Field(default=4096, ge=1)
    min_free_mib: int = Field(default=1024, ge=0)
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    client_certificates: bool = False
    target: str = ""
    options: ScpWish = ScpWish()

    @model_validator(mode="after")
    def _check(self) -> ScpSettings:
        if self.enabled and not self.callers:
            raise ValueError("callers: name at least one AE title that may call")
        if self.enabled and not self.target:
            raise ValueError("target: name the archive that the results are stored to")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: give both, or neither")
        if self.client_certificates and not (self.ca and self.certificate):
            raise ValueError("client_certificates: give ca, certificate and key, too")
        return self


class Settings(AccessSettings):
    """Read once at start. Who may ask is set as `AccessSettings` say.

    Attributes:
        models: folder whose sub-folders are bundles.
        model_keys: files of Ed25519 public keys, as a JSON list; bundles that none of them has signed are refused.
        workers: processes that answer requests, or `auto`: one for every four cores; with CUDA devices at least one for
            each, and no more than their memory holds. Several take the CUDA devices of `CUDA_VISIBLE_DEVICES` in turn.
            What is said below of a queue, and of explanations that may wait or run, holds for each worker.
        threads: threads of one ONNX Runtime call on the CPU; 0 is one for each core, or a worker's part of them.
        max_batch: most images in one forward pass.
        max_queue: images that may wait for a model; beyond it requests are answered 503, and one of more by itself 413.
        max_images: most files in one request.
        max_request_mib: largest request body in MiB.
        stall_s: seconds that a connection may stand still: for a request's head, its body, and the taking up of an
            answer; beyond it at least 16 KiB/s must come (`service.connections.SLOWEST`).
        answer_s: seconds from a request's head to the beginning of its answer, its body's transfer included; beyond it
            504, and a job is the better way to ask.
        max_wait_s: seconds of work that may be ahead of a request; beyond it requests are answered 503 at once.
        decode_threads: files decoded at once; 0 is one for each core, at most four.
        device: `auto` takes CUDA where it works, `cpu` and `cuda` insist.
        precision: `fp32`, `int8` or `fp16` (bundles that have it; others are refused), or `auto`, which takes int8 on a
            CPU and fp16 on CUDA where a bundle has it and it reproduces its golden sample here.
        inline_seconds: an explanation that would take longer must be a job, or be given a deadline, which lets it take
            four fifths of `answer_s`.
        max_explanations: explanations beyond one forward pass that may wait or run, until they have ended; further ones
            are answered 503.
        jobs_database: SQLAlchemy URL of the jobs' database; empty is an SQLite file in the user's state folder.
        job_ttl_s: seconds after which a job, its images and its result are deleted, running or not; what would take
            longer is refused.
        max_jobs: most jobs stored at once.
        rules: TOML file that says which model answers which series; left out, the shipped `service/series/rules.toml`.
        archives: PACS that speak DICOMweb, by name, as JSON: `{"orthanc": {"url": "http://127.0.0.1:8042/dicom-web"}}`.
        results: DICOM objects that are made where a request does not say, as a JSON list.
        result_options: how they are made, as JSON (`service.dicom_results.options.Options`).
        deidentify: take out of every DICOM object that is returned or stored what identifies the patient (PS3.15 E).
        study_folder: where instances wait, private; left out, in the user's state folder.
        site_key: file with the site's secret, made where it is missing: logs hold UIDs only as hashes with it, and
            de-identifying replaces UIDs by such hashes. Left out, in the user's state folder.
        study_ttl_s: seconds that an answered or a dead study is kept.
        max_studies: most studies that may wait or run; a caller, or an address by C-STORE, may have half of what the
            others leave.
        max_study_mib: most MiB of one study, unpacked.
        scp: the C-STORE door, as JSON; see `ScpSettings`. Closed where left out.
        reader_studies: SQLAlchemy URL of the reader studies' database; empty is an SQLite file in the state folder.
        log_format: `text`, or `json`: one object a line.
        job_lease_s: seconds without a sign of life after which a running job is another process's to take.
    """

    models: Path = SHIPPED_MODELS
    model_keys: tuple[Path, ...] = ()
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 1
    threads: int = Field(default=0, ge=0)
    max_batch: int = Field(default=64, ge=1, le=256)
    max_queue: int = Field(default=1024, ge=1)
    max_images: int = Field(default=64, ge=1)
    max_request_mib: int = Field(default=256, ge=1)
    stall_s: float = Field(default=20.0, gt=0)
    answer_s: float = Field(default=300.0, gt=0)
    max_wait_s: float = Field(default=10.0, gt=0)
    decode_threads: int = Field(default=0, ge=0)
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$")
    precision: str = Field(default="fp32", pattern="^(auto|fp32|int8|fp16)$")
    inline_seconds: float = Field(default=30.0, gt=0)
    max_explanations: int = Field(default=32, ge=1)
    jobs_database: str = ""
    job_ttl_s: int = Field(default=3600, ge=1)
    max_jobs: int = Field(default=256, ge=1)
    job_lease_s: float = Field(default=15.0, gt=0)
    rules: Path | None = None
    archives: dict[str, Archive] = Field(default_factory=dict[str, Archive])
    results: tuple[Kind, ...] = DEFAULT_KINDS
    result_options: Options = Options()
    deidentify: bool = False
    study_folder: Path | None = None
    site_key: Path | None = None
    study_ttl_s: float = Field(default=86_400, gt=0)
    max_studies: int = Field(default=10_000, ge=1)
    max_study_mib: int = Field(default=2048, ge=1)
    scp: ScpSettings = ScpSettings()
    reader_studies: str = ""
    log_format: Literal["text", "json"] = "text"


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """Names of variables that look like settings and are none: a misspelt one would be silently left out."""
    known = {name.upper() for name in Settings.model_fields}
    named = {name: name.upper().removeprefix(PREFIX) for name in environment if name.upper().startswith(PREFIX)}
    return sorted(name for name, rest in named.items() if rest not in known and not rest.startswith(_OTHERS))
