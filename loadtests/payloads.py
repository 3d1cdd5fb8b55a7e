"""Images to post, drawn here: nothing needs downloading, and no patient's image is used."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from export.golden import phantoms
from service.types import Grey8

SIDE = 512  # of the figshare slices; decoding and cropping are part of what is measured
SLICE_SIDE = 256  # of a slice in a series
MOST_SLICES = 200


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart request."""

    name: str
    content: bytes
    kind: str = "image/png"

    def part(self) -> tuple[str, tuple[str, bytes, str]]:
        """As `requests` takes it, under the field name of the API."""
        return ("images", (self.name, self.content, self.kind))


@cache
def uploads() -> dict[str, tuple[Upload, ...]]:
    """PNG files by DICOM modality: drawn heads for MR, drawn layers for OPT, eight of each."""
    drawn: dict[str, list[Upload]] = {"MR": [], "OPT": []}
    for seed in range(4):
        for number, image in enumerate(phantoms(SIDE, seed)[..., 0]):
            modality = ("MR", "OPT")[number % 2]
            drawn[modality].append(Upload(f"{modality}-{seed}-{number}.png", _png(image)))
    return {modality: tuple(files) for modality, files in drawn.items()}


@cache
def dicom_uploads() -> dict[str, tuple[Upload, ...]]:
    """DICOM files by modality: eight MR slices. There are none of other modalities."""
    heads = [image for seed in range(4) for image in phantoms(SIDE, seed)[::2, ..., 0]]
    files = [_mr_instance(image, number, "single images") for number, image in enumerate(heads)]
    return {"MR": tuple(Upload(f"MR-{n}.dcm", content, "application/dicom") for n, content in enumerate(files))}


@cache
def mr_series() -> tuple[bytes, ...]:
    """The `MOST_SLICES` instances of an MR series; every beginning of it is a series, too."""
    heads = [image for seed in range(4) for image in phantoms(SLICE_SIDE, seed)[::2, ..., 0]]
    return tuple(_mr_instance(heads[n % len(heads)], n, "series") for n in range(MOST_SLICES))


@cache
def bad_files() -> dict[str, Upload]:
    """Files that cannot be answered, by the kind of problem that they must be refused with."""
    good = uploads()["MR"][0].content
    bare = _mr_dataset(np.zeros((8, 8), np.uint8), 0, "without pixels")
    del bare.PixelData
    return {
        "unsupported-format": Upload("notes.txt", b"no image at all\n" * 8, "text/plain"),
        "corrupt-image": Upload("half.png", good[: len(good) // 2]),
        "no-pixel-data": Upload("bare.dcm", _saved(bare), "application/dicom"),
        "too-many-pixels": Upload("bomb.png", _bomb()),
    }


def draw() -> None:
    """All of the above, which takes seconds: before the first user comes, who would wait for it with all others."""
    for drawn in (uploads, dicom_uploads, mr_series, bad_files):
        drawn()


def _png(image: Grey8) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A small PNG that says it is 60,000 x 60,000 (PNG specification, 11.2.2)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(60_001 * 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _mr_instance(pixels: Grey8, number: int, series: str) -> bytes:
    return _saved(_mr_dataset(pixels, number, series))


def _mr_dataset(pixels: Grey8, number: int, series: str) -> Dataset:
    """An MR Image Storage instance (PS3.3 A.4) of nobody, 3 mm above the one before; a T1 series of the head."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = _uid(series, f"instance {number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(series, "study"), _uid(series, "series")
    ds.FrameOfReferenceUID = _uid(series, "frame of reference")
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.Modality, ds.BodyPartExamined, ds.SeriesDescription = "MR", "BRAIN", "T1 axial, drawn"
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "", 1, number + 1
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
    ds.EchoTime = ds.RepetitionTime = ds.EchoTrainLength = None
    ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], 3.0
    ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ds.ImagePositionPatient = [0.0, 0.0, 3.0 * number]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return ds


def _saved(ds: Dataset) -> bytes:
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _uid(*names: str) -> str:
    return generate_uid(entropy_srcs=["radiolucent load test", *names])
