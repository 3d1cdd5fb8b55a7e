"""Every metric's name, labels and buckets. Labels are names of ours (routes, models, methods, kinds), never a caller's.

`prometheus_client` has classic histograms only; docs/observability.md says how Prometheus makes native ones of them.
With several worker processes counters and histograms add up; a gauge says by its `multiprocess_mode` how.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PROBABILITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)
_ENERGIES = (-20, -15, -12, -10, -8, -7, -6, -5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 2)

REQUEST_SECONDS = Histogram(
    "radiolucent_request_seconds",
    "Duration of HTTP requests until the answer is sent, by route template and class of status (2xx to 5xx; aborted).",
    ["route", "status"],
    buckets=_SECONDS,
)
REQUESTS_IN_FLIGHT = Gauge(
    "radiolucent_requests_in_flight", "HTTP requests that are being answered.", multiprocess_mode="livesum"
)
STAGE_SECONDS = Histogram(
    "radiolucent_stage_seconds",
    "Duration of one stage of a request: receive, decode, queue, inference, explanation or outline, encode.",
    ["stage", "model", "method"],
    buckets=_SECONDS,
)
QUEUE_SECONDS = Histogram(
    "radiolucent_queue_seconds",
    "Time that an image waited for its forward pass: what to scale by.",
    ["model"],
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
EVALUATIONS = Counter("radiolucent_evaluations", "Images run through a model to explain others.", ["model", "method"])
PREDICTIONS = Counter(
    "radiolucent_predictions", "Images predicted, by the most probable class: a drift signal.", ["model", "label"]
)
CONFIDENCE = Histogram(
    "radiolucent_confidence",
    "Calibrated probability of the most probable class: a drift signal.",
    ["model"],
    buckets=_PROBABILITIES,
)
ENERGY = Histogram(
    "radiolucent_energy",
    "Energy score of an image, -logsumexp of its logits: higher is less like what the model learned from.",
    ["model"],
    buckets=_ENERGIES,
)
OUT_OF_KIND = Counter(
    "radiolucent_out_of_kind", "Images answered with a warning that they are of another kind, by sign.", ["sign"]
)
ASSESSMENTS = Counter(
    "radiolucent_assessments",
    "Images by whether the model could answer for them (yes, doubtful or no).",
    ["model", "assessable"],
)
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
