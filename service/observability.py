"""Metric names, and logging that cannot hold patient data: ids, counts, durations and error kinds only."""

from __future__ import annotations

import hmac
import logging

from prometheus_client import Counter, Gauge, Histogram

logger = logging.getLogger("radiolucent")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

STAGE_SECONDS = Histogram(
    "radiolucent_stage_seconds",
    "Duration of one stage of a request: decode, queue, inference, explanation, encode.",
    ["stage", "model", "method"],
    buckets=_SECONDS,
)
BATCH_IMAGES = Histogram(
    "radiolucent_batch_images",
    "Images in one forward pass.",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
IMAGES = Counter("radiolucent_images", "Images answered, by outcome (ok or failed).", ["model", "method", "outcome"])
ERRORS = Counter("radiolucent_errors", "Failed images and requests, by kind.", ["kind"])
MODEL_INFO = Gauge(
    "radiolucent_model_info",
    "1 for every model that is served.",
    ["model", "version", "provider"],
    multiprocess_mode="liveall",
)
BUNDLES_REFUSED = Gauge("radiolucent_bundles_refused", "Bundles found but not served.", multiprocess_mode="livemax")
JOBS = Counter("radiolucent_jobs", "Jobs ended, by outcome (done, failed, cancelled or expired).", ["outcome"])
JOBS_WAITING = Gauge("radiolucent_jobs_waiting", "Jobs that wait to be run.", multiprocess_mode="livemax")
STUDIES = Counter(
    "radiolucent_studies", "Runs of studies ended, by outcome (done, retried, dead, cancelled).", ["outcome"]
)
STUDIES_WAITING = Gauge(
    "radiolucent_studies_waiting",
    "Studies by status (receiving, queued, running, dead).",
    ["status"],
    multiprocess_mode="livemax",
)
INSTANCES = Counter(
    "radiolucent_instances", "DICOM instances by door (c-store, stow, wado) and outcome.", ["door", "outcome"]
)
EVALUATIONS = Counter("radiolucent_evaluations", "Images run through a model to explain others.", ["model", "method"])


def hashed_uid(uid: str, key: bytes) -> str:
    """What logs may hold of a UID: 12 hexadecimal digits of its HMAC-SHA256 with the site's secret key.

    The same UID gives the same digits at the same site; without the key nobody can try UIDs until one fits.
    """
    return hmac.digest(key, uid.encode(), "sha256").hex()[:12]
