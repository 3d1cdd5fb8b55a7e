from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bright import SIDE, png

from service.pipeline import Pipeline
from service.reader_study.cases import read_cases
from service.reader_study.freeze import Terms, freeze_cases, open_study, plan_of
from service.reader_study.rows import open_database
from service.reader_study.store import StudyStore
from service.settings import Settings

CLASSES = ("bright", "dark", "middle")


def write_folder(folder: Path, count: int = 6, training: int = 2) -> Path:
    """Images from dark to bright, with their `cases.csv`; the first ones are for training."""
    folder.mkdir()
    lines = ["file,truth,training"]
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 20, (SIDE, SIDE))
        level = 30 + 200 * number // count
        (folder / f"john-doe-{number}.png").write_bytes(png((level + noise).astype(np.uint8)))
        truth = CLASSES[number % 2]
        lines.append(f"john-doe-{number}.png,{truth},{'yes' if number < training else 'no'}")
    (folder / "cases.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def pipeline(write_bundle) -> Pipeline:
    return Pipeline(Settings(models=write_bundle("bright").parent, threads=1, device="cpu"))


@pytest.fixture
def engine(database):
    engine = open_database(database)
    yield engine
    engine.dispose()


Make = Callable[..., dict[str, str]]


@pytest.fixture
def make(tmp_path, pipeline) -> Make:
    """Makes a study of the folder `cases`; gives the readers' codes."""
    folder = write_folder(tmp_path / "cases")

    def make(engine, *, name="trial", design="crossover", washout_days=28.0, readers=("anna", "ben"), seed=1):
        store = StudyStore(engine)
        cases = read_cases(folder / "cases.csv", folder, CLASSES)
        terms = Terms(name, design, washout_days, seed, readers, "bright")
        study = store.add(plan_of(terms, cases, pipeline))
        assert len(list(freeze_cases(store, study, cases, pipeline))) == len(cases)
        return dict(open_study(store, study))

    return make
