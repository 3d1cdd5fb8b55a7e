"""What the manifests of classifiers and of segmentation models take from checkpoint and report alike."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from export.description import Description
from service.manifest import Estimate, Provenance
from training.bootstrap import Estimate as Measured
from training.config import TrainConfig
from training.report import Report
from training.segmentation.config import SegmentationConfig
from training.segmentation.report import SegmentationReport


def provenance(
    network: nn.Module,
    config: TrainConfig | SegmentationConfig,
    report: Report | SegmentationReport,
    description: Description,
    checkpoint_digest: str,
) -> Provenance:
    """Where the weights come from; `checkpoint_digest` is the SHA-256 of their file, in hexadecimal digits."""
    return Provenance(
        network=config.network,
        parameters=sum(p.numel() for p in network.parameters()),
        training_data=description.training_data,
        data_sha256=report.data_digest,
        split_sha256=report.split_digest,
        checkpoint_sha256=checkpoint_digest,
        initial_weights=description.initial_weights,
        epochs=config.epochs,
    )


def estimates(values: Mapping[str, Measured]) -> dict[str, Estimate]:
    """Measured values with their intervals, by metric, as a manifest holds them."""
    return {name: Estimate(value=v.value, low=v.low, high=v.high) for name, v in values.items()}
