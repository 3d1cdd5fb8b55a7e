"""Mixed models with readers and cases as crossed random effects, beside the pooled tests.

Right or wrong: a logistic model, fitted by variational Bayes (statsmodels' BinomialBayesMixedGLM), whose intervals are
credible intervals and known to be a little too narrow. Confidence and the logarithm of the time: a linear model fitted
by restricted maximum likelihood (statsmodels' MixedLM), with the normal distribution for its tests, which with few
readers is too narrow as well. Both have random intercepts for readers and for cases, and a random effect of the
explanation for each reader. In a crossover the fixed effects are the explanation, the period, and their product: the
carry-over, which differs from zero where it matters for a case which arm its reader saw first. It has little power; a
two-stage analysis that goes by its p-value is biased (Freeman, Stat. Med. 8 (1989) 1421), so it is reported and
decides nothing.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from service.validation import Strict
from training.study.readings import Readings, Values

Array = NDArray[np.float64]


class Effect(Strict):
    """A fixed effect with its 95 % interval and two-sided p (for the logistic model from its posterior)."""

    value: float
    low: float
    high: float
    p: float


class MixedModel(Strict):
    """A fitted model.

    Fixed effects: `explanation`; in a crossover `period` and `carry_over` too. `deviations` are the standard deviations
    of the random effects. In the logistic model all are log odds. `warning` is the library's, where it has one.
    """

    kind: Literal["logistic", "linear"]
    outcome: str
    effects: dict[str, Effect]
    deviations: dict[str, float]
    warning: str | None = None


def logistic(readings: Readings, outcome: str, values: Values) -> MixedModel | None:
    """Logistic mixed model of 0 or 1 `[2, R, C]`; None where all are the same."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    y, fixed, random = _design(readings, values)
    if np.ptp(y) == 0:
        return None
    identity = np.concatenate([np.full(part.shape[1], place) for place, part in enumerate(random.values())])
    model = BinomialBayesMixedGLM(y, np.stack(list(fixed.values()), axis=1), np.hstack(list(random.values())), identity)
    count = model.k_fep + model.k_vcp + model.k_vc
    fit, warning = _fit(lambda: model.fit_vb(mean=np.zeros(count), sd=np.full(count, 0.5)))  # else it starts at random
    effects = {name: _effect(fit.fe_mean[i], fit.fe_sd[i]) for i, name in enumerate(fixed) if name != "intercept"}
    deviations = {name: float(np.exp(fit.vcp_mean[i])) for i, name in enumerate(random)}
    return MixedModel(kind="logistic", outcome=outcome, effects=effects, deviations=deviations, warning=warning)


def linear(readings: Readings, outcome: str, values: Values) -> MixedModel | None:
    """Linear mixed model of `[2, R, C]`; None where all are the same."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    y, fixed, random = _design(readings, values)
    if np.ptp(y) == 0:
        return None
    columns = [[f"{name}{i}" for i in range(part.shape[1])] for name, part in random.items()]
    spec = VCSpec(list(random), [[names] for names in columns], [[part] for part in random.values()])
    model = MixedLM(y, np.stack(list(fixed.values()), axis=1), np.ones(len(y)), exog_vc=spec)
    fit, warning = _fit(lambda: model.fit(reml=True, method=["powell"]))
    effects = {name: _effect(fit.fe_params[i], fit.bse_fe[i]) for i, name in enumerate(fixed) if name != "intercept"}
    deviations = {name: float(fit.vcomp[i]) ** 0.5 for i, name in enumerate(random)}
    deviations["residual"] = float(fit.scale) ** 0.5
    return MixedModel(kind="linear", outcome=outcome, effects=effects, deviations=deviations, warning=warning)


def _design(readings: Readings, values: Values) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Outcome `[N]`, fixed effects `[N]` coded -1/2 and 1/2, random effects `[N, levels]` of zeros and ones."""
    arm, reader, case = np.nonzero(np.isfinite(values))
    effect: Array = arm - np.float64(0.5)
    fixed: dict[str, Array] = {"intercept": np.ones(len(arm)), "explanation": effect}
    random: dict[str, Array] = {"reader": _levels(reader), "case": _levels(case)}
    if readings.crossover:
        period: Array = readings.period[arm, reader, case] - 1.5
        fixed |= {"period": period, "carry_over": effect * period * 2}
        random["explanation by reader"] = _levels(reader) * effect[:, None]
    return values[arm, reader, case], fixed, random


def _levels(numbers: NDArray[np.int64]) -> Array:
    return (numbers[:, None] == np.unique(numbers)).astype(np.float64)


def _fit(fit: Any) -> tuple[Any, str | None]:  # noqa: ANN401 - statsmodels has no types
    """Fit, and keep what the library warns of, such as a variance at zero."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit()
    texts = dict.fromkeys(str(warning.message).splitlines()[0] for warning in caught)
    return result, "; ".join(texts) or None


def _effect(value: float, error: float) -> Effect:
    reach = float(stats.norm.ppf(0.975)) * float(error)
    p = 2 * float(stats.norm.sf(abs(value / error)))
    return Effect(value=float(value), low=float(value) - reach, high=float(value) + reach, p=p)
