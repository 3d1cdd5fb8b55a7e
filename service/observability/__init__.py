"""What the service tells of itself: metrics, logs, traces. Ids, counts, durations, error kinds; nothing of a patient.

docs/observability.md lists the metrics and says what the logs and the spans hold.
"""

from service.observability.logs import hashed_uid, logger
from service.observability.metrics import (
    BATCH_IMAGES,
    BUNDLES_REFUSED,
    ERRORS,
    EVALUATIONS,
    IMAGES,
    INSTANCES,
    JOBS,
    JOBS_WAITING,
    MODEL_INFO,
    QUEUE_SECONDS,
    STAGE_SECONDS,
    STUDIES,
    STUDIES_WAITING,
)

__all__ = [
    "BATCH_IMAGES",
    "BUNDLES_REFUSED",
    "ERRORS",
    "EVALUATIONS",
    "IMAGES",
    "INSTANCES",
    "JOBS",
    "JOBS_WAITING",
    "MODEL_INFO",
    "QUEUE_SECONDS",
    "STAGE_SECONDS",
    "STUDIES",
    "STUDIES_WAITING",
    "hashed_uid",
    "logger",
]
