from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ImplicitVRLittleEndian

from service.errors import RulesError
from service.series.reading import Series, read_series
from service.series.selection import Rule, Selection, read_rules, select
from tests.dicom_writers import classic_mr, encoded, enhanced_mr, ophthalmic_tomography, saved

IMAGES = [np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)] * 2
MODELS = ("brain-mri-resnet50", "retinal-oct-oculusnet")
SHIPPED = read_rules(None, MODELS)


def series_of(**elements: Any) -> Series:
    (found,) = read_series(saved(ds) for ds in classic_mr(IMAGES, **elements))
    return found


def chosen(series: Series) -> tuple[str, ...]:
    return select(series, SHIPPED).models


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def rule(**conditions: Any) -> Rule:
    return Rule(name="r", model="m", **conditions)


# The shipped rules


def test_the_shipped_rules_send_each_kind_to_its_model() -> None:
    (enhanced,) = read_series([saved(enhanced_mr(IMAGES))])
    (tomography,) = read_series([saved(ophthalmic_tomography(IMAGES))])
    assert chosen(series_of()) == chosen(enhanced) == ("brain-mri-resnet50",)
    assert chosen(tomography) == ("retinal-oct-oculusnet",)


@pytest.mark.parametrize(
    ("description", "body_part", "taken"),
    [
        ("Ax T1 FSE +C", "HEAD", True),
        ("anat-T1w", None, True),
        ("MPRAGE neuro", "", True),
        ("Ax T2 FLAIR", "BRAIN", False),
        ("T1 map", "BRAIN", False),
        ("T1 axial", None, False),  # of what?
        ("T1 axial", "KNEE", False),
        ("", "BRAIN", False),
    ],
)
def test_of_mr_only_t1_of_the_head_is_taken(description: str, body_part: str | None, taken: bool) -> None:
    series = series_of(SeriesDescription=description, BodyPartExamined=body_part)
    assert bool(chosen(series)) is taken


def test_what_the_service_itself_stores_in_a_study_is_not_taken() -> None:
    assert chosen(series_of(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")) == ()
    assert chosen(series_of(Modality="SEG")) == ()


def test_none_matching_is_an_answer_with_reasons_without_values() -> None:
    found = select(series_of(Modality="US", SeriesDescription="SECRET", BodyPartExamined="KNEE"), SHIPPED)
    assert found.models == ()
    assert [mismatch.rule for mismatch in found.mismatches] == [rule.name for rule in SHIPPED]
    first = found.mismatches[0].reasons
    assert "the modality is not MR" in first
    assert "the body part is not BRAIN or HEAD or SKULL" in first
    assert not any(word in str(found) for word in ("SECRET", "KNEE", "US'"))


def test_a_series_without_slices_is_given_to_no_model() -> None:
    found = select(series_of(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), SHIPPED)
    assert found.models == ()
    assert "no slice of the series can be answered" in found.mismatches[0].reasons


def test_shipped_rules_for_models_that_are_not_served_are_passed_over() -> None:
    assert {rule.model for rule in read_rules(None, MODELS[:1])} == {MODELS[0]}
    assert read_rules(None, ()) == ()


# Conditions


@pytest.mark.parametrize(
    "conditions",
    [
        {"modality": "mr"},
        {"modality": ["CT", "MR"]},
        {"body_part": "brain"},
        {"sop_class": "MRImageStorage"},
        {"sop_class": ["1.2.840.10008.5.1.4.1.1.4"]},
        {"laterality": ""},
        {"description": "AXIAL"},
        {"description": ["^t1", "contrast$"]},
        {"description_not": "t2"},
    ],
)
def test_a_condition_that_holds(conditions: dict[str, Any]) -> None:
    assert select(series_of(), [rule(**conditions)]) == Selection(("m",), ())


@pytest.mark.parametrize(
    "conditions",
    [
        {"modality": "CT"},
        {"modality": []},
        {"body_part": ""},
        {"sop_class": "EnhancedMRImageStorage"},
        {"laterality": ["L", "R"]},
        {"description": ["^t1", "coronal"]},
        {"description_not": ["t2", "AXIAL"]},
        {"modality": "MR", "laterality": "L"},
    ],
)
def test_all_conditions_must_hold(conditions: dict[str, Any]) -> None:
    found = select(series_of(), [rule(**conditions)])
    assert found.models == ()
    assert len(found.mismatches[0].reasons) == 1


def test_several_rules_may_match_and_a_model_is_named_once() -> None:
    rules = [Rule(name=str(n), model=model, modality="MR") for n, model in enumerate("aba")]
    assert select(series_of(), rules) == Selection(("a", "b"), ())


def test_laterality_of_either_eye() -> None:
    (left,) = read_series([saved(encoded(ophthalmic_tomography(IMAGES, laterality="L"), ImplicitVRLittleEndian))])
    assert select(left, [rule(laterality=["L"])]).models == ("m",)
    assert select(left, [rule(laterality=["R", "B"])]).models == ()


# Bad files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[rule]]\nmodel = "a"\nmodality = "MR"', ["rule 1", "name"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\nmodalities = "MR"', ["rule 1 (x)", "modalities"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\nmodality = 3', ["rule 1 (x)", "modality"]),
        ('[[rule]]\nname = "x"\nmodel = "a"', ["rule 1 (x)", "no condition"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\nsop_class = "MRI"', ["rule 1 (x)", "sop_class", "neither"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\nsop_class = ""', ["rule 1 (x)", "sop_class", "neither"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\nlaterality = "left"', ["rule 1 (x)", "laterality", "R, L, B"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\ndescription = "("', ["rule 1 (x)", "description", "regular expression"]),
        ('[[rule]]\nname = "x"\nmodel = "b"\nmodality = "MR"', ["rule 1 (x)", "model", "no such model"]),
        (
            '[[rule]]\nname = "x"\nmodel = "a"\nmodality = "MR"\n[[rule]]\nname = "y"\nmodel = ""\nmodality = "MR"',
            ["rule 2 (y)", "model"],
        ),
        ('[rules]\nname = "x"', ["nothing but"]),
        ("rule = 3", ["nothing but"]),
        ("rule = [3]", ["rule 1"]),
        ("[[rule", ["not TOML"]),
    ],
)
def test_a_bad_file_is_an_error_that_names_rule_and_field(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(RulesError) as caught:
        read_rules(written(tmp_path, text), {"a"})
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="cannot be read"):
        read_rules(tmp_path / "none.toml", {"a"})
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(RulesError, match="cannot be read"):
        read_rules(tmp_path / "latin.toml", {"a"})


def test_an_empty_file_has_no_rules(tmp_path: Path) -> None:
    assert read_rules(written(tmp_path, ""), {"a"}) == ()


# Patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*b",
        "(?:a{1,9}){9}",
        "((a*)?)*",
        "a*a*a*a*a*b",
        "(a|a)(a|a)(a|a)(a|a)(a|a)b",
        r"(a)\1",
        "(?=a)a",
        "(?i)a",
        "(?P<x>a)",
        "a" * 201,
        "a{9999999999999}",
        "[a",
        "a**",
        "[[a]",
    ],
)
def test_a_pattern_that_may_be_slow_or_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="description"):
        rule(description=pattern)


@pytest.mark.parametrize(
    "pattern", ["t1[ _-]?(map|rho)", r"\bt1w?\b", "(post|with)( gd)?", "[]x]+", r"\(c\)", "a+?b{2,3}"]
)
def test_ordinary_patterns_are_taken(pattern: str) -> None:
    assert rule(description=pattern).description == (pattern,)


@pytest.mark.parametrize("pattern", ["a*a*a*a*b", "(a|a|a)(a|a|a)(a|a|a)(a|a|a)b", "(a*a|a*a)(a*|a)(a*|a)b"])
def test_the_worst_that_is_taken_ends_on_the_longest_description(pattern: str) -> None:
    found = select(series_of(SeriesDescription="a" * 64), [rule(description=pattern)])
    assert found.models == ()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab()[]{}?*+|\\.^$1,:=<", max_size=12))
def test_any_pattern_is_taken_or_refused(pattern: str) -> None:
    try:
        taken = rule(description=pattern)
    except ValueError:
        return
    assert taken.description == (pattern,)
