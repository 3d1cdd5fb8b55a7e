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
from tests.dicom_modules import code, item, put_pixels
from tests.dicom_writers import classic_mr, encoded, enhanced_mr, in_photometric, ophthalmic_tomography, saved

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
        ("", "BRAIN", True),  # by its times
        ("SAG 3D", "BRAIN", True),
        ("AAHead_Scout T1", "BRAIN", False),
        ("T1 femoral head", None, False),
        ("T1_SUB", "BRAIN", False),
        ("sub-01_T1w", "BRAIN", True),
    ],
)
def test_of_mr_only_t1_of_the_head_is_taken(description: str, body_part: str | None, taken: bool) -> None:
    series = series_of(SeriesDescription=description, BodyPartExamined=body_part)
    assert bool(chosen(series)) is taken


def refusals(series: Series) -> str:
    """All reasons against the first of the shipped rules for the series' kind."""
    found = select(series, SHIPPED)
    assert found.models == ()
    return "; ".join(found.mismatches[2 if series.modality == "OPT" else 0].reasons)


@pytest.mark.parametrize("place", ["instance", "shared", "frame"])
@pytest.mark.parametrize(
    ("value", "scheme", "meaning"),
    [
        ("72696002", "SCT", "Knee"),
        ("T-D9200", "SRT", "Knee"),
        ("T-D9200", "SNM3", "Knee"),
        ("24974", "FMA", "Knee"),
        ("K1", "99SITE", "something of ours"),
    ],
)
def test_a_coded_knee_is_no_brain_whatever_its_code_and_place(
    place: str, value: str, scheme: str, meaning: str
) -> None:
    ds = enhanced_mr(IMAGES)
    region = code(value, scheme, meaning)
    anatomy = item(FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[region])])
    if place == "instance":
        ds.AnatomicRegionSequence = [region]  # while the shared groups say brain
    elif place == "shared":
        ds.SharedFunctionalGroupsSequence[0].update(anatomy)
    else:
        ds.PerFrameFunctionalGroupsSequence[1].update(anatomy)
    (series,) = read_series([saved(ds)])
    assert "the body part is not BRAIN or HEAD or SKULL, by Anatomic Region Sequence (0008,2218)" in refusals(series)
    assert "Knee" not in refusals(series)


@pytest.mark.parametrize(
    "region", [("T-A0100", "SRT", "Brain"), ("50801", "FMA", "Brain"), ("258335003", "SCT", "Entire brain")]
)
def test_a_coded_brain_is_one_in_any_scheme(region: tuple[str, str, str]) -> None:
    assert chosen(series_of(BodyPartExamined=None, AnatomicRegionSequence=[code(*region)], SeriesDescription="T1"))


@pytest.mark.parametrize(
    ("region", "taken"),
    [
        (("28726007", "SCT", "Cornea"), False),
        (("T-AA200", "SRT", "Cornea"), False),
        (("T-AA050", "SRT", "Anterior chamber"), False),
        (("78076003", "SCT", "Lens"), False),
        (("81745001", "SCT", "Eye"), True),
        (("T-AA610", "SRT", "Retina"), True),
        (("67046006", "SCT", "Fovea centralis"), True),
    ],
)
def test_of_the_eye_only_the_retina_is_taken(region: tuple[str, str, str], taken: bool) -> None:
    ds = ophthalmic_tomography(IMAGES, AnatomicRegionSequence=[code(*region)])
    del ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    (series,) = read_series([saved(ds)])
    assert bool(chosen(series)) is taken


def test_body_part_and_code_that_contradict_each_other_are_refused() -> None:
    knee = [code("72696002", "SCT", "Knee")]
    assert "by Anatomic Region Sequence" in refusals(series_of(AnatomicRegionSequence=knee))
    brain = [code("12738006", "SCT", "Brain")]
    assert "by Body Part Examined" in refusals(series_of(BodyPartExamined="KNEE", AnatomicRegionSequence=brain))


@pytest.mark.parametrize(
    ("image_type", "says"),
    [
        ("DERIVED/PRIMARY/M/T1 MAP/DIS3D", "a map"),
        ("DERIVED/PRIMARY/T1/T1/MAP", "a map"),
        ("ORIGINAL/PRIMARY/PHASE MAP/P/FFE", "a phase"),
        ("ORIGINAL/PRIMARY/P/ND", "a phase"),
        ("ORIGINAL/PRIMARY/R_IR/R/IR", "a phase"),
        ("DERIVED/SECONDARY/ADC", "a map"),
        ("DERIVED/PRIMARY/PROJECTION IMAGE/MIP", "a projection"),
        ("DERIVED/SECONDARY/OTHER/CSA MIP", "a projection"),
        ("DERIVED/SECONDARY/3D RENDERING", "a projection"),
        ("DERIVED/PRIMARY/M/T1/DIS2D", "a map"),
        ("DERIVED/PRIMARY/PERFUSION/RELCBV", "a map"),
        ("DERIVED/SECONDARY/M/SUB", "a subtraction"),
        ("DERIVED/SECONDARY/SCREEN SAVE", "a screen capture"),
        ("ORIGINAL/PRIMARY/M/ND/MOSAIC", "no slice"),
    ],
)
def test_what_image_type_says_is_no_picture_of_a_slice_is_refused(image_type: str, says: str) -> None:
    series = series_of(ImageType=image_type.split("/"), SeriesDescription="T1w_MPR")
    assert says in refusals(series)


@pytest.mark.parametrize(
    "image_type",
    [
        "ORIGINAL/PRIMARY/M/ND/NORM/DIS2D",
        "ORIGINAL/PRIMARY/M_SE/M/SE",
        "DERIVED/PRIMARY/MPR",
        "DERIVED/SECONDARY/M/UNI",
        "DERIVED/SECONDARY",
    ],
)
def test_magnitude_images_and_what_is_reformatted_of_them_are_taken(image_type: str) -> None:
    assert chosen(series_of(ImageType=image_type.split("/")))


def test_a_colour_image_is_refused_by_the_attribute_that_says_so() -> None:
    grey = classic_mr([image.astype(np.uint8) for image in IMAGES])
    for ds in grey:
        put_pixels(ds, np.zeros((40, 48), np.uint8))
    (series,) = read_series([saved(in_photometric(ds, "RGB")) for ds in grey])
    assert "Photometric Interpretation (0028,0004) says a colour image" in refusals(series)


def test_description_and_times_that_contradict_each_other_are_both_named() -> None:
    found = refusals(series_of(SeriesDescription="t1 tra", RepetitionTime="4000", EchoTime="90"))
    assert "the weighting is not T1: the timing of the sequence" in found
    assert "says T2; the Series Description (0008,103E) says T1" in found


def test_a_functional_series_is_refused_by_its_name_and_its_sequence() -> None:
    found = refusals(series_of(SeriesDescription="rfMRI_REST1_LR", ScanningSequence="EP", EchoTime="33"))
    assert "Scanning Sequence (0018,0020) says ECHO PLANAR" in found
    assert "says FUNCTIONAL" in found


def test_a_rule_of_a_site_takes_what_its_conditions_do_not_mention() -> None:
    maps = series_of(ImageType=["DERIVED", "PRIMARY", "ADC"], SeriesDescription="ADC")
    assert select(maps, [rule(description="adc")]).models == ("m",)
    assert select(maps, [rule(description="adc", content="map")]).models == ("m",)
    assert select(maps, [rule(description="adc", content="")]).models == ()


def test_what_the_service_itself_stores_in_a_study_is_not_taken() -> None:
    assert chosen(series_of(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")) == ()
    assert chosen(series_of(Modality="SEG")) == ()


def test_none_matching_is_an_answer_with_reasons_without_values() -> None:
    found = select(series_of(Modality="US", SeriesDescription="SECRET", BodyPartExamined="KNEE"), SHIPPED)
    assert found.models == ()
    assert [mismatch.rule for mismatch in found.mismatches] == [rule.name for rule in SHIPPED]
    first = found.mismatches[0].reasons
    assert "the modality is not MR, by Modality (0008,0060)" in first
    assert "the body part is not BRAIN or HEAD or SKULL, by Body Part Examined (0018,0015)" in first
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
        {"words": ["mprage", "t1"]},
        {"words_not": "axi"},
        {"weighting": "t1"},
        {"content": ["", "map"]},
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
        {"words": ["post1", "ax"]},
        {"words_not": ["t2", "post"]},
        {"weighting": ["T2", "PD"]},
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
        ('[[rule]]\nname = "x"\nmodel = "a"\nwords = "t1*"', ["rule 1 (x)", "words", "letters and digits"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\nweighting = "T9"', ["rule 1 (x)", "weighting", "not one of T1"]),
        ('[[rule]]\nname = "x"\nmodel = "a"\ncontent = "art"', ["rule 1 (x)", "content", "not empty or one of"]),
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
