"""Write the documents' tables from the committed results and the settings, between `<!-- NAME -->` and `<!-- end -->`.

python -m benchmarks.tables          rewrites README.md, docs/deploy.md, dicom-results.md, faults.md...
python -m benchmarks.tables --check  status 1 where a document is not what the results say
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial

from benchmarks import tables_gpu as gpu
from benchmarks import tables_models as models
from benchmarks import tables_service as service
from benchmarks import tables_settings as settings
from benchmarks.results_of import ROOT
from service.access.tokens import Oidc
from service.dicom_results.options import Options
from service.dicomweb.archives import Archive
from service.settings import ScpSettings, ScpWish
from training.files import write_atomically

README = ROOT / "README.md"
_TABLED = (
    "backfill.md",
    "decoding.md",
    "deploy.md",
    "dicom-results.md",
    "faults.md",
    "gpu.md",
    "http-efficiency.md",
    "load-testing.md",
    "observability.md",
    "same-anatomy.md",
    "scaling.md",
    "settings.md",
)
_NAMED = (ROOT / "docs" / name for name in _TABLED)
DOCUMENTS = (README, *_NAMED, *sorted((ROOT / "docs").glob("explanation-*.md")))
BRAIN, OCT, UNET = "brain-mri-resnet50", "retinal-oct-oculusnet", "brain-mri-unet"


SECTIONS: dict[str, Callable[[], str]] = {
    "accuracy": models.accuracy,
    "shortcut": models.shortcut,
    "localisation": models.localisation,
    "explain_cost": models.explain_cost,
    "footprint": service.footprint,
    "container": service.container,
    "decoding": service.decoding,
    "studies": service.studies,
    "pacs": service.pacs,
    "http": service.http,
    "interference": service.interference,
    "overload": service.overload,
    "overload_apart": partial(service.overload, "overload_apart"),
    "observation": service.observation,
    "faults": service.faults,
    "soak": service.soak,
    "load": service.load,
    "capacity": service.capacity,
    "backfill": service.backfill,
    "scaling": service.scaling,
    "capacity_check": service.capacity_check,
    "capacity_model": service.capacity_model,
    "settings": settings.all_settings,
    "setting_archive": partial(settings.members, Archive),
    "setting_result_options": partial(settings.members, Options),
    "setting_scp": partial(settings.members, ScpSettings),
    "setting_scp_options": partial(settings.members, ScpWish),
    "setting_oidc": partial(settings.members, Oidc),
    "gpu_planning": gpu.planning,
    "gpu_forward": gpu.forward,
    "gpu_methods": gpu.methods,
    "gpu_throughput": gpu.throughput,
    "gpu_http": gpu.http,
    "gpu_interference": partial(service.interference, "gpu_interference"),
    "gpu_scaling": gpu.scaling,
    "gpu_studies": partial(service.studies, "gpu_studies"),
    "gpu_backfill": partial(service.backfill, "gpu_backfill"),
    "gpu_soak": partial(service.soak, "gpu_soak"),
    "gpu_capacity": gpu.capacity,
    "methods_cost": models.methods_cost,
    "parity_brain": partial(models.parity, BRAIN),
    "parity_oct": partial(models.parity, OCT),
    "shapley_oct": partial(models.shapley, OCT),
    "invariance_brain": partial(models.invariance, BRAIN),
    "invariance_unet": partial(models.invariance, UNET),
    "invariance_oct": partial(models.invariance, OCT),
    "field_of_view": models.field_of_view,
    "beside_before": service.beside_before,
    "quality_brain": partial(models.quality, BRAIN),
    "quality_oct": partial(models.quality, OCT),
}


def rewritten(text: str) -> str:
    """The text with every marked section made anew.

    Raises:
        KeyError: a marker names no section.
    """
    return re.sub(
        r"<!-- ([a-z_]+) -->\n.*?<!-- end -->",
        lambda found: f"<!-- {found[1]} -->\n{SECTIONS[found[1]]()}\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    texts = {path: path.read_text() for path in DOCUMENTS}
    new = {path: rewritten(text) for path, text in texts.items()}
    if options.check:
        return int(new != texts)
    for path, text in new.items():
        write_atomically(path, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
