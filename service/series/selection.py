"""Which models answer a series: rules in a TOML file (`service/series/rules.toml` documents them)."""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from service.errors import RulesError
from service.images.contents import KINDS
from service.images.tags import sop_class_name, sop_class_uid
from service.series.reading import Series
from service.series.weighting import WEIGHTINGS, Evidence, by_description, by_header
from service.series.words import words_in
from service.validation import Strict, faults_of

SHIPPED_RULES = Path(__file__).with_name("rules.toml")
_DESCRIPTION = "the Series Description (0008,103E)"
_MOST_GROUPS, _MOST_REPEATS, _LONGEST_PATTERN = 4, 4, 200
_TOKEN = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<open>\((?:\?:)?)|(?P<close>\))"
    r"|(?P<repeat>[*+?]|\{\d*,?\d*\})|(?P<other>.)",
    re.DOTALL,
)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _upper(value: str) -> str:
    return value.strip().upper()


def _side(value: str) -> str:
    if value not in ("R", "L", "B", "U", ""):
        raise ValueError("not R, L, B, U or empty")
    return value


def _sop_class(value: str) -> str:
    found = sop_class_uid(value)
    if found is None:
        raise ValueError("neither the UID nor the keyword of a SOP class")
    return found


def _pattern(value: str) -> str:
    """Refuse what could take long on some description: Python's matcher tries every way that a pattern allows."""
    if len(value) > _LONGEST_PATTERN:
        raise ValueError(f"longer than {_LONGEST_PATTERN} characters")
    parts = [(found.lastgroup or "", found.group()) for found in _TOKEN.finditer(value)]
    kinds = [kind for kind, _ in parts]
    if kinds.count("open") > _MOST_GROUPS or kinds.count("repeat") > _MOST_REPEATS:
        raise ValueError(f"more than {_MOST_GROUPS} groups or {_MOST_REPEATS} repetitions")
    for before, (kind, part) in zip(["", *kinds], parts, strict=False):
        if before == "open" and part == "?":
            raise ValueError("look-around, flags and named groups are not known")
        if kind == "repeat" and part != "?" and before not in ("other", "set", "escape"):
            raise ValueError("a repetition of something else than one character")
        if kind == "escape" and part[1].isdigit():
            raise ValueError("references to groups are not known")
    try:
        with warnings.catch_warnings(action="error", category=FutureWarning):  # of what will mean something else
            re.compile(value)
    except (re.error, OverflowError, FutureWarning):
        raise ValueError("not a regular expression") from None
    return value


def _weighting(value: str) -> str:
    if value not in WEIGHTINGS:
        raise ValueError(f"not one of {', '.join(WEIGHTINGS)}")
    return value


def _content(value: str) -> str:
    if value and value.lower() not in KINDS:
        raise ValueError(f"not empty or one of {', '.join(KINDS)}")
    return value.lower()


def _word(value: str) -> str:
    if not re.fullmatch(r"[^\W_]+( [^\W_]+)*", value):
        raise ValueError("not letters and digits with single spaces between")
    return value


Values = Annotated[tuple[Annotated[str, AfterValidator(_upper)], ...], BeforeValidator(_listed)]
Sides = Annotated[tuple[Annotated[str, AfterValidator(_upper), AfterValidator(_side)], ...], BeforeValidator(_listed)]
SopClasses = Annotated[tuple[Annotated[str, AfterValidator(_sop_class)], ...], BeforeValidator(_listed)]
Weightings = Annotated[
    tuple[Annotated[str, AfterValidator(_upper), AfterValidator(_weighting)], ...], BeforeValidator(_listed)
]
Contents = Annotated[tuple[Annotated[str, AfterValidator(_content)], ...], BeforeValidator(_listed)]
Words = Annotated[tuple[Annotated[str, AfterValidator(_word)], ...], BeforeValidator(_listed)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_listed)]


class Rule(Strict):
    """One `[[rule]]` of the file; None is no condition. Fields are documented in `service/series/rules.toml`."""

    name: str = Field(min_length=1, max_length=100)
    model: str = Field(min_length=1)
    modality: Values | None = None
    body_part: Values | None = None
    sop_class: SopClasses | None = None
    laterality: Sides | None = None
    content: Contents | None = None
    weighting: Weightings | None = None
    words: Words = ()
    words_not: Words = ()
    description: Patterns = ()
    description_not: Patterns = ()

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        named = (self.modality, self.body_part, self.sop_class, self.laterality, self.content, self.weighting)
        words = self.words or self.words_not or self.description or self.description_not
        if not words and all(values is None for values in named):
            raise ValueError("no condition: the rule would match everything")
        return self


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A rule that does not match, and why, without DICOM values."""

    rule: str
    model: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The models that answer a series, each once, in order of the rules; and the rules that do not match."""

    models: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]


def read_rules(path: Path | None, models: Collection[str]) -> tuple[Rule, ...]:
    """Read the rules.

    Args:
        path: of a rules file; None is the shipped one, of which only the rules for served models are taken.
        models: ids of the served bundles.

    Raises:
        RulesError: no file, not TOML, or a rule that is not valid or names a model that is not served; the message
            names rule and field.
    """
    file = path or SHIPPED_RULES
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"the rules file cannot be read: {type(error).__name__}") from error
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"the rules file is not TOML: {error}") from error
    listed = content.pop("rule", [])
    if content or not isinstance(listed, list):
        raise RulesError("the rules file may hold nothing but [[rule]] tables")
    rules = [_rule(number, entry) for number, entry in enumerate(listed, 1)]
    if path is None:
        return tuple(rule for rule in rules if rule.model in models)
    for number, rule in enumerate(rules, 1):
        if rule.model not in models:
            raise RulesError(f"rule {number} ({rule.name}): model: no such model is served")
    return tuple(rules)


def _rule(number: int, entry: object) -> Rule:
    try:
        return Rule.model_validate(entry)
    except ValidationError as error:
        name = entry.get("name") if isinstance(entry, dict) else None
        title = f"rule {number} ({name})" if isinstance(name, str) else f"rule {number}"
        raise RulesError(f"{title}: {faults_of(error, 'rule')}") from error


def select(series: Series, rules: Collection[Rule]) -> Selection:
    """Choose the models for a series; that there are none is an answer too.

    Args:
        series: as read; one without slices is given to no model.
        rules: those of the file.
    """
    models: list[str] = []
    mismatches: list[Mismatch] = []
    evidence = cache(partial(_evidence, series))
    for rule in rules:
        reasons = _reasons(series, rule, evidence)
        if reasons:
            mismatches.append(Mismatch(rule.name, rule.model, tuple(reasons)))
        elif rule.model not in models:
            models.append(rule.model)
    return Selection(tuple(models), tuple(mismatches))


def _reasons(series: Series, rule: Rule, evidence: Callable[[], tuple[Evidence, ...]]) -> list[str]:
    """Why a rule does not match, each reason with what says so."""
    reasons = [] if series.slices else ["no slice of the series can be answered"]
    for name, value, wanted, source in (
        ("modality", series.modality, rule.modality, "Modality (0008,0060)"),
        ("SOP class", series.sop_class, rule.sop_class, "SOP Class UID (0008,0016)"),
        ("laterality", series.laterality, rule.laterality, "Laterality (0020,0060), of image or frame"),
    ):
        if wanted is not None and value.upper() not in wanted:
            choices = map(sop_class_name, wanted) if wanted is rule.sop_class else wanted
            reasons.append(f"the {name} is not {_either(choices)}, by {source}")
    if rule.body_part is not None:
        reasons += _other_body_parts(series, rule.body_part)
    if rule.content is not None:
        reasons += [what.reason for what in series.contents if what.kind not in rule.content]
    if rule.weighting is not None:
        reasons += _other_weightings(evidence(), series.description, rule.weighting)
    said, found = _DESCRIPTION, partial(re.search, string=series.description, flags=re.IGNORECASE)
    if rule.words and not words_in(series.description, rule.words):
        reasons.append(f"{said} has none of the words {', '.join(rule.words)}")
    reasons += [f"{said} has the word {word}" for word in words_in(series.description, rule.words_not)]
    reasons += [f"{said} has nothing like {wanted}" for wanted in rule.description if not found(wanted)]
    reasons += [f"{said} has something like {barred}" for barred in rule.description_not if found(barred)]
    return reasons


def _either(choices: Iterable[str]) -> str:
    return " or ".join(choice or "absent" for choice in choices)


def _other_body_parts(series: Series, wanted: Collection[str]) -> list[str]:
    """What names a body part that is not wanted, or that none is named."""
    reason = f"the body part is not {_either(wanted)}"
    if not series.body_parts:
        return [] if "" in wanted else [f"{reason}: the header names none"]
    sources = dict.fromkeys(part.source for part in series.body_parts if part.name not in wanted)
    return [f"{reason}, by {source}" for source in sources]


def _evidence(series: Series) -> tuple[Evidence, ...]:
    """What the headers of all slices say of their weighting, each once."""
    return tuple(dict.fromkeys(one for each in series.slices for one in by_header(each.header, each.number - 1)))


def _other_weightings(evidence: Collection[Evidence], description: str, wanted: Collection[str]) -> list[str]:
    """What weights the series otherwise: its header decides, and its description where that does not say.

    Where one of the two contradicts the other, the reason names both.
    """
    named = sorted(by_description(description))
    told = [f"{one.source} says {one.weighting}" for one in evidence]
    if named:
        told.append(f"{_DESCRIPTION} says {' and '.join(named)}")
    if told and all(weighting in wanted for weighting in (*(one.weighting for one in evidence), *named)):
        return []
    return [f"the weighting is not {_either(wanted)}: {'; '.join(told) or 'neither header nor description says it'}"]
