"""What weights the contrast of an MR frame: by its header, and by the words of its description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydicom.dataset import Dataset

from service.images.groups import group, positive, terms
from service.images.tags import text
from service.series.words import has_word, words_in

Weighting = Literal[
    "T1", "T2", "T2*", "PD", "FLAIR", "STIR", "DIFFUSION", "PERFUSION", "FUNCTIONAL", "ANGIOGRAPHY", "FLOW", "TAGGING",
    "SUSCEPTIBILITY", "SPECTROSCOPY", "ECHO PLANAR",
]  # fmt: skip
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
_TIMES = "the timing of the sequence (Repetition, Echo and Inversion Time (0018,0080) to (0018,0082))"
_T1_ECHO, _T2_ECHO, _T2_STAR_ECHO = 30, 60, 15  # ms


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one place of the header says of the weighting."""

    weighting: Weighting
    source: str


# Acquisition Contrast (0008,9209), PS3.3 C.8.13.3.1.2; the same terms stand in Image Type (C.8.13.3.1, C.8.16.1.3)
_CONTRASTS: Mapping[str, Weighting] = {
    "T1": "T1",
    "T2": "T2",
    "T2 STAR": "T2*",
    "PROTON DENSITY": "PD",
    "FLUID ATTENUATED": "FLAIR",
    "STIR": "STIR",
    "DIFFUSION": "DIFFUSION",
    "PERFUSION": "PERFUSION",
    "FLOW ENCODED": "FLOW",
    "TAGGING": "TAGGING",
    "TOF": "ANGIOGRAPHY",
}
_IMAGE_TYPES: Mapping[str, Weighting] = {
    **_CONTRASTS,
    "DIFFUSION ISO": "DIFFUSION",
    "TRACEW": "DIFFUSION",
    "TRACE": "DIFFUSION",
    "CALC BVALUE": "DIFFUSION",
    "PERFUSION ASL": "PERFUSION",
    "ASL": "PERFUSION",
    "FMRI": "FUNCTIONAL",
    "ANGIO": "ANGIOGRAPHY",
    "ANGIO TIME": "ANGIOGRAPHY",
    "SWI": "SUSCEPTIBILITY",
    "SW": "SUSCEPTIBILITY",
    "SPECTROSCOPY": "SPECTROSCOPY",
}
# Sequence Name (0018,0024) as Siemens writes it (`*epfid2d1_64`), Pulse Sequence Name (0018,9005)
_SEQUENCE_NAMES: tuple[tuple[re.Pattern[str], Weighting], ...] = (
    (re.compile(r"\*?ep_?b\d|.*(diff|dwi|dti)"), "DIFFUSION"),
    (re.compile(r".*(bold|fmri)"), "FUNCTIONAL"),
    (re.compile(r".*(asl|perf)"), "PERFUSION"),
    (re.compile(r".*tof"), "ANGIOGRAPHY"),
    (re.compile(r".*(swi|swan)"), "SUSCEPTIBILITY"),
    (re.compile(r".*(venc|_v\d+(in|rl|ap|fh|th))|.*phasecontrast"), "FLOW"),
)
_NAMED: Mapping[Weighting, str] = {
    "T1": "t1, st1w, wt1w, ax t1, axial t1, tra t1, sag t1, cor t1, obl t1, 3d t1, 2d t1, pre t1, ir t1, gd t1, ce t1"
    ", fs t1, mprage, mp rage, spgr, fspgr, ir fspgr, ir spgr, bravo",
    "T2": "t2, st2w, ax t2, axial t2, tra t2, sag t2, cor t2, 3d t2, haste, ciss, fiesta, drive",
    "T2*": "t2 star, t2s",
    "PD": "pd, pdw, proton density",
    "FLAIR": "flair, dark fluid",
    "STIR": "stir",
    "DIFFUSION": "dwi, dti, diff, diffusion, ivim, dki, dsi, hardi, tracew, adc, b0, b500, b600, b700, b800, b900"
    ", b1000, b1500, b2000, b3000",
    "FUNCTIONAL": "bold, fmri, rfmri, tfmri, rsfmri, rest, resting, restingstate, task",
    "PERFUSION": "perf, perfusion, dsc, dce, asl, pcasl, pasl, casl, cbf, cbv, rcbf, rcbv, mtt, ttp, tmax, ktrans",
    "ANGIOGRAPHY": "tof, mra, mrv, ce mra, angio, angiography, angiogram, venogram, venography, tricks, cow, pca",
    "FLOW": "venc, 4d flow, phase contrast",
    "SUSCEPTIBILITY": "swi, swan, swip, qsm, susceptibility",
    "SPECTROSCOPY": "mrs, mrsi, svs, csi, spectro, spectroscopy",
    "ECHO PLANAR": "epi, ep2d, ep3d",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a sequence, ms, and its flip angle, degrees, as far as they are known.

    `echo` says how the echo is formed, `prepared` whether an inversion or another preparation comes before the
    sequence; `inversion_time` is that of an inversion alone.
    """

    echo: Literal["spin", "gradient", ""]
    echo_time: float
    repetition_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    prepared: bool = False


def by_header(header: Dataset, index: int) -> tuple[Evidence, ...]:
    """Collect what the header says of a frame's weighting; empty where it says nothing that decides.

    Named outright: Acquisition Contrast, Image Type and Frame Type, a diffusion b-value above 0, Angio Flag, the
    attributes of MR Pulse Sequence (PS3.3 C.8.13.4), the sequence's name. Computed: from Scanning Sequence (C.8.3.1),
    Repetition, Echo and Inversion Time and Flip Angle, see `by_times`. A contrast agent decides nothing: what it
    brightens is T1-weighted or not without it.

    Args:
        header: an MR instance, classic or with functional groups.
        index: the frame, from 0.
    """
    described = group(header, index, "MRImageFrameTypeSequence")
    found: list[Evidence] = []
    for ds, keyword, source, known in (
        (described, "AcquisitionContrast", "Acquisition Contrast (0008,9209)", _CONTRASTS),
        (described, "FrameType", "Frame Type (0008,9007)", _IMAGE_TYPES),
        (header, "ImageType", "Image Type (0008,0008)", _IMAGE_TYPES),
    ):
        found += [Evidence(known[value], source) for value in terms(ds, keyword) if value in known]
    if positive(group(header, index, "MRDiffusionSequence"), "DiffusionBValue"):
        found.append(Evidence("DIFFUSION", "Diffusion b-value (0018,9087)"))
    if terms(header, "AngioFlag") == ("Y",):
        found.append(Evidence("ANGIOGRAPHY", "Angio Flag (0018,0025)"))
    if terms(header, "TimeOfFlightContrast") == ("YES",):
        found.append(Evidence("ANGIOGRAPHY", "Time of Flight Contrast (0018,9015)"))
    if terms(header, "PhaseContrast") == ("YES",):
        found.append(Evidence("FLOW", "Phase Contrast (0018,9014)"))
    for keyword, source in (
        ("SequenceName", "Sequence Name (0018,0024)"),
        ("PulseSequenceName", "Pulse Sequence Name (0018,9005)"),
    ):
        name = text(header, keyword).lower()
        found += [Evidence(kind, source) for pattern, kind in _SEQUENCE_NAMES if pattern.match(name)]
    sequence = _by_sequence(header, index)
    if any(one.weighting == "T1" for one in sequence):  # that nulls fluid besides
        found = [one for one in found if one.weighting != "FLAIR"]
    return tuple(dict.fromkeys((*found, *sequence)))


def by_times(timing: Timing) -> Weighting | None:
    """Derive the weighting from the times of a sequence at 0.5 to 3 T; None where they do not decide.

    Where protocols overlap, nothing is said. Spin echoes: T1-weighted by repetition times up to 1 s and echo times up
    to 30 ms, T2-weighted by echo times from 60 ms, proton density by long repetition and short echo times; an inversion
    nulls fat (STIR), or fluid at an echo time as for T2 (FLAIR), or deepens T1 contrast. Gradient echoes: T1-weighted
    with an inversion 0.3 to 1.5 s before them (MPRAGE), and with flip angles from 50 degrees at repetition times of 60
    to 400 ms; T2*-weighted by echo times from 15 ms. Gradient echoes in quick succession may be T1-weighted anatomy,
    angiography or a steady state: nothing is said.

    Sources: M. A. Bernstein et al., Handbook of MRI Pulse Sequences (2004), chapters 14 and 16; J. P. Mugler and J. R.
    Brookeman, Magn. Reson. Med. 15:152 (1990), MPRAGE; J. V. Hajnal et al., J. Comput. Assist. Tomogr. 16:841 (1992),
    FLAIR.
    """
    if timing.echo == "gradient":
        return _gradient_echo(timing)
    if timing.echo_time >= _T2_ECHO:
        return "FLAIR" if (timing.inversion_time or 0) >= 1400 else "T2"
    return _short_spin_echo(timing) if timing.echo == "spin" and timing.echo_time <= _T1_ECHO else None


def _gradient_echo(timing: Timing) -> Weighting | None:
    if timing.echo_time >= _T2_STAR_ECHO:
        return "T2*"
    if timing.prepared:
        return "T1" if 300 <= (timing.inversion_time or 0) <= 1500 else None
    return "T1" if 60 <= (timing.repetition_time or 0) <= 400 and (timing.flip_angle or 0) >= 50 else None


def _short_spin_echo(timing: Timing) -> Weighting | None:
    if timing.inversion_time is not None:
        return "STIR" if timing.inversion_time < 300 else "T1" if timing.inversion_time < 1400 else None
    if timing.prepared or timing.repetition_time is None:
        return None
    return "T1" if timing.repetition_time <= 1000 else "PD" if timing.repetition_time >= 1800 else None


def by_description(description: str) -> frozenset[Weighting]:
    """Find the weightings that a Series Description (0008,103E) names; none where it names none.

    T1-weighted sequences that null fluid are T1-weighted. Of the images of an MP2RAGE only the uniform one is (J. P.
    Marques et al., NeuroImage 49:1271 (2010)): the two inversions and the map are not.
    """
    found: set[Weighting] = {kind for kind, words in _NAMED.items() if words_in(description, words.split(", "))}
    if has_word(description, "mp2rage"):
        found -= {"T1"}
        if has_word(description, "uni"):
            found |= {"T1"}
    return frozenset(found - {"FLAIR"} if "T1" in found else found)


def _by_sequence(header: Dataset, index: int) -> tuple[Evidence, ...]:
    scanning, variant = terms(header, "ScanningSequence"), terms(header, "SequenceVariant")
    echo_pulse = terms(header, "EchoPulseSequence")  # PS3.3 C.8.13.4, of enhanced objects
    spin = "SE" in scanning or "SPIN" in echo_pulse
    gradient = "GR" in scanning or "GRADIENT" in echo_pulse
    if "EP" in scanning:
        return (Evidence("ECHO PLANAR", "Scanning Sequence (0018,0020)"),)
    if terms(header, "EchoPlanarPulseSequence") == ("YES",):
        return (Evidence("ECHO PLANAR", "Echo Planar Pulse Sequence (0018,9018)"),)
    echo_time = positive(group(header, index, "MREchoSequence"), "EffectiveEchoTime") or positive(header, "EchoTime")
    if echo_time is None:
        return ()
    times = group(header, index, "MRTimingAndRelatedParametersSequence")
    modifier = group(header, index, "MRModifierSequence")
    inverted = "IR" in scanning or terms(modifier, "InversionRecovery") == ("YES",)
    prepared = inverted or "MP" in variant
    inversion_time = positive(header, "InversionTime") or positive(modifier, "InversionTimes")
    timing = Timing(
        echo="" if spin == gradient else "spin" if spin else "gradient",
        echo_time=echo_time,
        repetition_time=positive(times, "RepetitionTime"),
        inversion_time=inversion_time if prepared else None,
        flip_angle=positive(times, "FlipAngle"),
        prepared=prepared,
    )
    kind = by_times(timing)
    return () if kind is None else (Evidence(kind, _TIMES),)
