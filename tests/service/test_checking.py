"""What would take too long is refused before anything is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.composing import Wish
from service.errors import TooSlow
from service.explainers import METHODS
from service.explainers.base import Options
from service.pipeline import Pipeline
from service.registry import Costs
from service.settings import Settings

A_DAY = 86_400_000


@pytest.fixture
def pipeline(write_bundle) -> Pipeline:
    pipeline = Pipeline(Settings(models=write_bundle("bright").parent, threads=1, device="cpu"))
    models = pipeline.registry.models
    models["bright"] = replace(models["bright"], costs=Costs(forward=10, gradient=10))
    return pipeline


@pytest.mark.parametrize(
    ("files", "budget", "deadline", "inline"),
    [
        (1, 2000, None, True),
        (1, 2000, A_DAY, True),
        (64, 100_000, 10_000, True),
        (1, 100_000, None, False),
        (64, 100_000, 60_000, False),
    ],
)
def test_what_ends_in_time_is_taken(pipeline, files, budget, deadline, inline):
    wish = Wish("shap", options=Options(budget=budget, deadline_ms=deadline))
    assert pipeline.check("bright", files, wish, inline=inline).name == "shap"


@pytest.mark.parametrize(
    ("files", "budget", "deadline", "inline", "said"),
    [
        (1, 100_000, None, True, "1000 s, and an answer at once may take 30 s"),
        (64, 100_000, A_DAY, True, "64001 s, and with a deadline an answer at once may take 240 s"),
        (64, 100_000, 250_000, True, "250 s, and with a deadline"),
        (64, 100_000, None, False, "64001 s, and a job is kept for 3600 s"),
        (64, 100_000, A_DAY, False, "64001 s, and a job"),
    ],
)
def test_what_would_not_is_refused_with_how_long_it_would_take(pipeline, files, budget, deadline, inline, said):
    wish = Wish("shap", options=Options(budget=budget, deadline_ms=deadline))
    with pytest.raises(TooSlow, match=f"about {said}"):
        pipeline.check("bright", files, wish, inline=inline)


@pytest.mark.parametrize(
    ("provider", "each", "step"),
    [
        ("cpu", 20, 3),  # of 60 ms
        ("cpu", 100, 1),
        ("cpu", 0.1, 64),
        ("cuda", 0.06, 64),  # of 4 ms, in sizes that are planned
        ("cuda", 0.2, 16),
        ("cuda", 5, 8),
    ],
)
def test_a_step_is_short_and_shorter_where_it_cannot_be_stopped(pipeline, provider, each, step):
    model = pipeline.registry.models["bright"]
    engine, costs = replace(model.engine, provider=provider), Costs(forward=each, gradient=2 * each)
    model = replace(model, engine=engine, costs=costs)
    assert model.step(METHODS["rise"]) == step
    assert model.step(METHODS["integrated_gradients"]) <= step
