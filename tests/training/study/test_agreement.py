from __future__ import annotations

import numpy as np
import pytest

from training.study.agreement import agreement, alpha, fleiss, intraclass

NAN = np.nan
# Fleiss (Psychol. Bull. 76 (1971) 378, table 1): 30 patients, 6 psychiatrists, 5 diagnoses; the psychiatrists differ
# from patient to patient, so the order within a patient means nothing.
DIAGNOSES = """444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445
333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"""
FLEISS = np.array([[float(digit) for digit in patient] for patient in DIAGNOSES.split()]).T
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): 4 observers, 12 units, gaps.
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# Shrout & Fleiss (Psychol. Bull. 86 (1979) 420, table 2): 6 targets, 4 judges.
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float).T


def test_fleiss_own_example():
    assert fleiss(FLEISS) == pytest.approx(0.430, abs=5e-4)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(level, published):
    assert alpha(KRIPPENDORFF, level) == pytest.approx(published, abs=5e-4)


def test_shrout_and_fleiss_own_example():
    found = intraclass(SHROUT)
    assert found is not None
    assert found.value == pytest.approx(0.29, abs=5e-3)  # ICC(2,1)
    assert (found.low, found.high) == (pytest.approx(0.02, abs=5e-3), pytest.approx(0.76, abs=5e-3))


def test_coefficients_fit_the_level_and_have_intervals():
    nominal = agreement(FLEISS, "nominal", resamples=200, seed=0)
    assert (nominal.readers, nominal.cases, nominal.icc) == (6, 30, None)
    assert nominal.fleiss_kappa.low < 0.43 < nominal.fleiss_kappa.high
    ordinal = agreement(KRIPPENDORFF, "ordinal", resamples=200, seed=0)
    assert ordinal.fleiss_kappa is None
    assert ordinal.krippendorff_alpha.low < 0.815 < ordinal.krippendorff_alpha.high


def test_where_all_answers_are_alike_nothing_is_defined():
    alike = np.full((3, 5), 2.0)
    assert agreement(alike, "nominal", resamples=10, seed=0).fleiss_kappa is None
    found = agreement(alike, "ordinal", resamples=10, seed=0)
    assert (found.krippendorff_alpha, found.icc) == (None, None)


def test_readers_who_agree_in_full_have_no_error_for_an_interval_of_the_icc():
    agreed = np.tile(np.array([1.0, 2, 4, 5, 3]), (3, 1))
    assert intraclass(agreed) is None
    assert alpha(agreed, "ordinal") == pytest.approx(1)
    assert intraclass(agreed + np.array([[0.0], [1], [2]])) is None  # a constant apart
