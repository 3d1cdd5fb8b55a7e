from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import CLASSES, SIZE, ShortOculusNet, engine_of, lively
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from export.__main__ import main as export
from export.gradients import gradient_graph
from export.graph import Fused, fuse_network
from export.onnx_file import to_onnx, trace
from service.engine import Engine
from training.__main__ import main as training
from training.checkpoint import load_network
from training.models import NETWORKS
from training.models.network import Network


@pytest.fixture(scope="session")
def network(finished_run) -> Network:
    """The one that the commands export, so that it is traced once."""
    return load_network(finished_run / "last.pt")[0]


@pytest.fixture(scope="session")
def fused(network) -> Fused:
    return fuse_network(network, SIZE)


@pytest.fixture(scope="session")
def graph(fused, tracing) -> onnx.ModelProto:
    return tracing[0](fused.module, SIZE, fused.module.names)


@pytest.fixture(scope="session")
def engine(graph, fused, tracing) -> Engine:
    return engine_of(graph, tracing[1](fused.module, SIZE))


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (11, SIZE, SIZE, 1), np.uint8)


CONFIG = """
network = "short_oculusnet"
classes = ["CNV", "DME", "DRUSEN", "NORMAL"]
healthy = ["NORMAL"]
batch = 8
stages = [{{ size = 32, epochs = 1 }}]

[data]
adapter = "kermany"
split = "{split}"

[preprocessing]
field_of_view = "frame"
size = 64
"""


def write_scans(root: Path) -> None:
    """24 patients of each class, one scan each, in Kermany's layout; a bright spot sits where the class says."""
    random = np.random.default_rng(0)
    for number, label in enumerate(CLASSES):
        (root / label).mkdir(parents=True)
        for patient in range(24):
            smooth = gaussian_filter(random.normal(size=(48, 64)), 3)
            scan = 120 * (smooth - smooth.min()) / np.ptp(smooth)
            scan[20:30, 4 + number * 15 : 14 + number * 15] += 130
            Image.fromarray(scan.astype(np.uint8)).save(root / label / f"{label}-{number * 100 + patient}-1.png")


@pytest.fixture(scope="session", autouse=True)
def short_network() -> Iterator[None]:
    """For the commands, which trace it: that takes most of the time here, and as long as there are layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "short_oculusnet", lambda classes: lively(ShortOculusNet(classes)))
        yield


@pytest.fixture(scope="session")
def finished_run(short_network, tmp_path_factory) -> Path:
    """A run, trained and evaluated by the commands that people use."""
    root = tmp_path_factory.mktemp("finished")
    write_scans(root / "data")
    (root / "config.toml").write_text(CONFIG.format(split=root / "split.json"))
    commands = [
        ["train", root / "config.toml", root / "data", root / "run"],
        ["evaluate", root / "run" / "last.pt", root / "data", root / "run" / "report", "--bootstrap", "50"],
    ]
    for command in commands:
        assert training([*map(str, command)]) == 0
    return root / "run"


Trace = Callable[..., onnx.ModelProto]


def whole(argument: object) -> object:
    """For `repr`, which leaves out most of a large tensor, its shape included."""
    if isinstance(argument, dict):
        return {name: (tensor.dtype, tensor.tolist()) for name, tensor in argument.items()}
    return argument


def traced_once(trace: Trace, parts: Callable[[nn.Module], list[nn.Module]]) -> Trace:
    """Tracing takes seconds, and gives the same for the same weights: each network is traced once for all tests."""
    known: dict[str, onnx.ModelProto] = {}

    def remembered(module: nn.Module, *more: object) -> onnx.ModelProto:
        key = hashlib.sha256(repr([whole(argument) for argument in more]).encode())
        for part in parts(module):
            key.update(str(part).encode())
            for name, tensor in part.state_dict().items():
                key.update(name.encode() + tensor.numpy().tobytes())
        if key.hexdigest() not in known:
            known[key.hexdigest()] = trace(module, *more)
        copied = onnx.ModelProto()
        copied.CopyFrom(known[key.hexdigest()])
        return copied

    return remembered


@pytest.fixture(scope="session", autouse=True)
def tracing() -> Iterator[tuple[Trace, Trace]]:
    """What the commands and the fixtures trace: graphs, and those of gradients."""
    graphs = traced_once(to_onnx, lambda module: [module])
    gradients = traced_once(gradient_graph, lambda module: [module.body, module.tail])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.segmentation.trace", traced_once(trace, lambda module: [module]))
        patch.setattr("export.classifier.to_onnx", graphs)
        patch.setattr("export.extend.to_onnx", graphs)
        patch.setattr("export.writer.gradient_graph", gradients)
        yield graphs, gradients


@pytest.fixture(scope="session")
def exported(finished_run, tmp_path_factory) -> Path:
    """The run's bundle, made by the command that people use; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("exported") / "retinal-oct-oculusnet"
    assert export([str(finished_run / "last.pt"), str(out)]) == 0
    return out
