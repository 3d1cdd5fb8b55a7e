"""What an explanation method is: one call signature, whether it asks the model nothing more or a thousand questions.

A method is a generator for one image. It yields what it wants to know of the model (`Predict`, `Gradient`), is sent
the answer, and returns its attributions. `run_together` advances the generators of many images in step and puts what
they ask into common batches, so that no method knows of batching, scheduling, deadlines' clocks or other requests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from service.errors import DeadlineTooShort
from service.orientation import turned_back
from service.types import UPRIGHT, Attribution, Float, Grey8, Outputs, Target, Turn
from service.validation import Strict

Baseline = Literal["blur", "mean", "black"]
Tier = Literal["inline", "budgeted", "job"]


class Options(Strict):
    """How a method is run. What a method has no use for, it ignores and does not report.

    Attributes:
        baseline: what takes the place of hidden pixels; see `service.explainers.masking`.
        budget: most images that may go through the model for one image, besides its prediction; None is the method's
            own default.
        deadline_ms: after this many milliseconds the method ends with what it has; None is no deadline.
        seed: of everything random.
    """

    baseline: Baseline = "blur"
    budget: int | None = Field(default=None, ge=1, le=100_000)
    deadline_ms: int | None = Field(default=None, ge=1, le=86_400_000)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Question:
    """One image to be explained.

    Attributes:
        image: prepared pixels uint8 `[H, W]`.
        outputs: of the model, without the axis N.
        targets: what is explained.
        turn: from the source's orientation to that of the image.
    """

    image: Grey8
    outputs: Outputs
    targets: tuple[Target, ...]
    turn: Turn = UPRIGHT

    def scores(self, logits: Float) -> Float:
        """What the targets are of logits `[..., K]`: float32 `[..., T]`."""
        return logits @ self.target_weights().T

    def target_weights(self) -> Float:
        """Float32 `[T, K]`."""
        return np.stack([target.weights(self.outputs.logits.shape[-1]) for target in self.targets])


@dataclass(frozen=True, slots=True)
class Predict:
    """Asks for the logits float32 `[M, K]` of prepared images uint8 `[M, H, W]`."""

    images: Grey8


@dataclass(frozen=True, slots=True)
class Gradient:
    """Asks for the gradient float32 `[M, H, W]` of `weights . logits` with respect to the pixels.

    `pixels` float32 `[M, H, W]`, 0..255 and beyond; `weights` float32 `[M, K]`.
    """

    pixels: Float
    weights: Float


Ask = Predict | Gradient
Explaining = Generator[Ask, Float, list[Attribution]]


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which a method works on one image.

    Attributes:
        options: as the client gave them.
        budget: most evaluations, never None.
        expired: whether the deadline has passed; a method that can end early asks between its questions.
        step: most images asked for between two looks at the deadline; see `predicted`.
    """

    options: Options
    budget: int
    expired: Callable[[], bool]
    step: int = 64


class Explainer(Protocol):
    """A method: from one image's outputs, and whatever else it asks, to an attribution for each target, in order."""

    def __call__(self, question: Question, terms: Terms) -> Explaining:
        """Explain one image."""
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """A method as the registry and the manifest know it.

    Attributes:
        name: in the API.
        exact: it computes its definition to rounding error (given a budget that suffices).
        meaning: what its values are, and in which unit.
        unit: of the values, in the singular; empty where they have none.
        source: the paper.
        explain: the function.
        outputs: outputs of the model's graph that it reads, besides the logits.
        gradients: it needs the bundle's gradient graph.
        budget: default number of evaluations for one image and one target; 0 where the prediction alone suffices.
        per_target: the evaluations are needed anew for each target.
        targeted: the map depends on the target.
        linear_head: it holds only behind global average pooling and one linear layer.
        same_as: name of another method whose map is the same wherever this one is offered; empty: there is none.
    """

    name: str
    exact: bool
    meaning: str
    source: str
    explain: Explainer
    outputs: frozenset[str] = frozenset()
    gradients: bool = False
    budget: int = 0
    per_target: bool = False
    targeted: bool = True
    linear_head: bool = False
    same_as: str = ""
    unit: str = "logit"


class Model(Protocol):
    """What answers; `Engine`, or a view of it that waits for its turn."""

    def logits(self, images: Grey8) -> Float:
        """Logits float32 `[M, K]` of images uint8 `[M, H, W]`."""
        ...

    def gradient(self, pixels: Float, weights: Float) -> Float:
        """Gradients float32 `[M, H, W]`; see `Gradient`."""
        ...


def read_off(name: str, read: Callable[[Question, Target], Float]) -> Explainer:
    """An explainer that needs nothing but the prediction's own outputs: `read` gives the map of one target."""

    def explain(question: Question, terms: Terms) -> Explaining:
        yield from ()
        return [Attribution(name, target, read(question, target), exact=True) for target in question.targets]

    return explain


def run_together(
    method: Method,
    questions: Sequence[Question],
    model: Model,
    options: Options,
    *,
    batch: int = 16,
    progress: Callable[[float], None] = lambda share: None,
) -> list[list[Attribution]]:
    """Explain many images at once: what their generators ask in one step goes through the model in common batches.

    Args:
        method: one for all.
        questions: the images, with their own targets.
        model: answers in the calling thread.
        options: the same for all.
        batch: most images in one call of the model.
        progress: told the share of the budget spent, 0..1; it may raise to give up.

    Returns:
        For each question, one attribution for each target, in order, its maps in the orientation of the source.

    Raises:
        DeadlineTooShort: the deadline passed before a method had anything to return.
    """
    end = None if options.deadline_ms is None else monotonic() + options.deadline_ms / 1000
    step = max(1, batch // max(1, len(questions)))
    terms = Terms(options, options.budget or method.budget, lambda: end is not None and monotonic() >= end, step)
    waiting: dict[int, tuple[Explaining, Ask]] = {}
    done: dict[int, list[Attribution]] = {}
    spent, planned = 0, _planned(method, questions, terms)

    def advance(number: int, explaining: Explaining, reply: Float | None) -> None:
        try:
            ask = next(explaining) if reply is None else explaining.send(reply)
            waiting[number] = (explaining, ask)
        except StopIteration as ended:
            done[number] = ended.value

    for number, question in enumerate(questions):
        advance(number, method.explain(question, terms), None)
    while waiting:
        step = dict(waiting)
        waiting.clear()
        replies = _answer(model, [ask for _, ask in step.values()], batch)
        parts: list[Float] = []
        for part in replies:
            parts.append(part)
            spent += len(part)
            progress(min(1.0, spent / planned))
        joined = np.concatenate(parts)
        start = 0
        for number, (explaining, ask) in step.items():
            count = _length(ask)
            advance(number, explaining, joined[start : start + count])
            start += count
    return [
        [_in_source(attribution, question.turn) for attribution in done[number]]
        for number, question in enumerate(questions)
    ]


def _in_source(attribution: Attribution, turn: Turn) -> Attribution:
    if turn == UPRIGHT:
        return attribution
    interval = None if attribution.interval is None else turned_back(attribution.interval, turn)
    return replace(attribution, values=turned_back(attribution.values, turn), interval=interval)


def _planned(method: Method, questions: Sequence[Question], terms: Terms) -> int:
    each = [len(question.targets) if method.per_target else 1 for question in questions]
    return max(1, terms.budget * sum(each))


def _length(ask: Ask) -> int:
    return len(ask.images) if isinstance(ask, Predict) else len(ask.pixels)


def _answer(model: Model, asks: Sequence[Ask], batch: int) -> Generator[Float]:
    """Replies to all asks (all of one kind: they come from one method), a batch at a time."""
    if isinstance(asks[0], Predict):
        images = np.concatenate([ask.images for ask in asks if isinstance(ask, Predict)])
        for start in range(0, len(images), batch):
            yield model.logits(images[start : start + batch])
        return
    pixels = np.concatenate([ask.pixels for ask in asks if isinstance(ask, Gradient)])
    weights = np.concatenate([ask.weights for ask in asks if isinstance(ask, Gradient)])
    for start in range(0, len(pixels), batch):
        yield model.gradient(pixels[start : start + batch], weights[start : start + batch])


def predicted(images: Grey8, terms: Terms) -> Generator[Ask, Float, Float]:
    """Ask for the logits of images uint8 `[M, H, W]`: fewer than M where the deadline passes, but at least one step's.

    Returns:
        Float32 `[M or fewer, K]`, of the first ones.
    """
    return _in_steps(lambda step: Predict(images[step]), len(images), terms)


def differentiated(pixels: Float, weights: Float, terms: Terms) -> Generator[Ask, Float, Float]:
    """The same for gradients float32 `[M or fewer, H, W]`; arguments as in `Gradient`."""
    return _in_steps(lambda step: Gradient(pixels[step], weights[step]), len(pixels), terms)


def _in_steps(ask: Callable[[slice], Ask], count: int, terms: Terms) -> Generator[Ask, Float, Float]:
    """Ask at once where there is no deadline, else a step at a time, and look at the deadline between."""
    if terms.options.deadline_ms is None:
        return (yield ask(slice(0, count)))
    parts: list[Float] = []
    for start in range(0, count, terms.step):
        if parts and terms.expired():
            break
        parts.append((yield ask(slice(start, start + terms.step))))
    return np.concatenate(parts)


def must_not_expire(terms: Terms) -> None:
    """For methods that have no result before their last evaluation.

    Raises:
        DeadlineTooShort: the deadline has passed.
    """
    if terms.expired():
        raise DeadlineTooShort("the deadline passed before there was a result; give it more time, or a smaller budget")
