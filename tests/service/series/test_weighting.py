from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from service.series.weighting import Timing, by_description, by_header, by_times
from tests.dicom_modules import item
from tests.dicom_writers import classic_mr, enhanced_mr

IMAGES = [np.arange(20 * 24, dtype=np.uint16).reshape(20, 24)]
SILENT = {"EchoTime": None, "RepetitionTime": None, "ImageType": ["ORIGINAL", "PRIMARY", "M"]}


def said(header: Dataset) -> set[str]:
    return {one.weighting for one in by_header(header, 0)}


def classic(**elements: Any) -> set[str]:
    return said(classic_mr(IMAGES, **elements)[0])


@pytest.mark.parametrize(
    ("name", "timing", "weighting"),
    [
        ("T1 spin echo", Timing("spin", 12, 500), "T1"),
        ("T2 spin echo", Timing("spin", 90, 4000), "T2"),
        ("proton density", Timing("spin", 20, 2500), "PD"),
        ("T1 FLAIR", Timing("spin", 9, 2200, 800, prepared=True), "T1"),
        ("T2 FLAIR", Timing("spin", 120, 9000, 2500, prepared=True), "FLAIR"),
        ("STIR", Timing("spin", 25, 4000, 150, prepared=True), "STIR"),
        ("MPRAGE", Timing("gradient", 2.98, 2300, 900, 9, prepared=True), "T1"),
        ("T1 FLASH", Timing("gradient", 4.8, 250, None, 70), "T1"),
        ("T2* gradient echo", Timing("gradient", 20, 600, None, 20), "T2*"),
        ("time of flight, as T1 by its times", Timing("gradient", 3.4, 25, None, 18), None),
        ("steady state", Timing("gradient", 1.8, 4, None, 45), None),
        ("between T1 and PD", Timing("spin", 15, 1400), None),
        ("of an unknown echo", Timing("", 12, 500), None),
        ("long echo of an unknown kind", Timing("", 95, 4200), "T2"),
    ],
)
def test_the_times_of_usual_protocols(name: str, timing: Timing, weighting: str | None) -> None:
    assert by_times(timing) == weighting, name


def test_classic_headers() -> None:
    assert classic() == {"T1"}
    assert classic(EchoTime="90", RepetitionTime="4000") == {"T2"}
    assert classic(ScanningSequence=["GR", "IR"], InversionTime="900", EchoTime="3", RepetitionTime="2300") == {"T1"}
    assert classic(ScanningSequence=["EP", "GR"], EchoTime="30") == {"ECHO PLANAR"}
    assert classic(**SILENT) == set()


@pytest.mark.parametrize(
    ("elements", "weighting"),
    [
        ({"AcquisitionContrast": "T2"}, "T2"),
        ({"AcquisitionContrast": "FLUID_ATTENUATED"}, "FLAIR"),
        ({"AngioFlag": "Y"}, "ANGIOGRAPHY"),
        ({"SequenceName": "*tof3d1r"}, "ANGIOGRAPHY"),
        ({"SequenceName": "*ep_b1000#1"}, "DIFFUSION"),
        ({"SequenceName": "*fl2d1_v150in"}, "FLOW"),
        ({"DiffusionBValue": 1000.0}, "DIFFUSION"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PERFUSION_ASL"]}, "PERFUSION"),
    ],
)
def test_what_names_the_weighting(elements: dict[str, Any], weighting: str) -> None:
    assert classic(**{**SILENT, **elements}) == {weighting}


@pytest.mark.parametrize("b_value", [0.0, None])
def test_without_diffusion_weighting_a_b_value_says_nothing(b_value: float | None) -> None:
    assert classic(**SILENT, **({} if b_value is None else {"DiffusionBValue": b_value})) == set()


def test_functional_groups_are_read_for_each_frame() -> None:
    ds = enhanced_mr(IMAGES * 2)
    ds.PerFrameFunctionalGroupsSequence[1].MRDiffusionSequence = [item(DiffusionBValue=800.0)]
    ds.PerFrameFunctionalGroupsSequence[1].MREchoSequence = [item(EffectiveEchoTime=90.0)]
    assert {one.weighting for one in by_header(ds, 0)} == {"T1"}
    assert {one.weighting for one in by_header(ds, 1)} == {"T1", "DIFFUSION", "T2"}


def test_attributes_of_the_pulse_sequence_of_enhanced_objects() -> None:
    assert "ECHO PLANAR" in said(enhanced_mr(IMAGES, EchoPlanarPulseSequence="YES"))
    assert "ANGIOGRAPHY" in said(enhanced_mr(IMAGES, TimeOfFlightContrast="YES"))
    assert "FLOW" in said(enhanced_mr(IMAGES, PhaseContrast="YES"))


@pytest.mark.parametrize(
    "description",
    [
        "T1w",
        "t1_mprage_sag_p2_iso",
        "T1W_3D_TFE",
        "sT1W_3D",
        "ST1W_3D",
        "t1-tfe",
        "AX T1 +C",
        "T1POST",
        "T1Gd",
        "3DT1",
        "ADNI MPRAGE",
        "Ax SPGR",
        "3D BRAVO",
        "Sag FSPGR 3D",
        "T1-weighted",
        "T1_SE",
        "cor t1 tse",
        "AXT1",
        "SAGT1",
        "t1_mp2rage_sag_p3_iso_UNI_Images",
        "mp2rage UNI",
        "Ax T1 FLAIR",
        "t1_tirm_tra_dark-fluid",
        "MPRAGESag",
        "preT1w",
    ],
)
def test_descriptions_of_t1_weighted_series(description: str) -> None:
    assert by_description(description) == {"T1"}


@pytest.mark.parametrize(
    "description",
    [
        "rfMRI_REST1_LR",
        "REST1 w SMS PF7-8",
        "dist1",
        "CEST1",
        "post1",
        "right1",
        "test1",
        "T10",
        "Ax T2 FLAIR",
        "FLAIR",
        "t2_tse",
        "ep2d_diff_b1000",
        "BOLD_task",
        "TOF 3D T1",
        "SWI",
        "pcasl",
        "PDw",
        "mp2rage INV1",
        "anat-MP2RAGE_T1_Images",
        "T1T2",
        "",
    ],
)
def test_descriptions_of_others(description: str) -> None:
    assert by_description(description) != {"T1"}
