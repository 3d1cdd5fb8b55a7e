"""A bundle made anew from its own weights."""

from __future__ import annotations

import numpy as np
import pytest

from export.golden import phantoms
from export.parity import run_module
from export.restore import CannotRestore, restore
from service.bundle import Bundle, read_bundle
from service.engine import open_engine
from service.settings import SHIPPED_MODELS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("name", ["brain-mri-resnet50", "retinal-oct-oculusnet"])
def test_the_restored_network_is_the_one_that_is_served(name):
    bundle = read_bundle(SHIPPED_MODELS / name)
    fused, images = restore(bundle), phantoms(224, 4)[:2]
    assert set(fused.module.names) == set(bundle.manifest.graph.outputs)
    expected = open_engine(bundle, device="cpu").run(images, bundle.manifest.graph.outputs)
    found = run_module(fused.module, images)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    for output in bundle.manifest.graph.outputs:
        scale = np.abs(expected.more[output]).max()
        np.testing.assert_allclose(found.more[output], expected.more[output], atol=1e-3 * scale)
    assert fused.bias == pytest.approx(bundle.manifest.graph.bias)


def test_another_head_is_refused():
    bundle = read_bundle(SHIPPED_MODELS / "retinal-oct-oculusnet")
    graph = bundle.manifest.graph.model_copy(update={"cam": "gradient"})
    with pytest.raises(CannotRestore, match="linear head"):
        restore(Bundle(bundle.path, bundle.manifest.model_copy(update={"graph": graph})))
