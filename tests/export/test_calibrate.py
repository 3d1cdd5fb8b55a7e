from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_scans
from networks import CLASSES
from PIL import Image

from export.calibrate import main as calibrate
from export.conformal import lowest_limit
from service.bundle import GRAPH, MANIFEST, read_bundle, sha256
from service.engine import open_engine
from service.images.reading import read_frames
from service.prediction import predict
from service.preprocessing import prepare
