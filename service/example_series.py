"""A DICOM series to try the service with: made from one slice of the MNI152 template, and no head."""

from __future__ import annotations

import zipfile
from functools import cache
from io import BytesIO

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from service.imaging import read_frames
from service.page_routes import FOLDER
from service.types import Grey8

_SOURCE = FOLDER / "examples" / "mni152-slice.png"
_SLICES = 11
_THICKNESS = 12.0  # mm between slices


@cache
def example_series() -> bytes:
    """A zip of MR Image Storage instances (PS3.3 A.4): the slice, narrowed towards both ends as a head is.

    Every slice is the same picture in another size, so the series shows the path and not an anatomy. The same bytes at
    every call; patient and institution are absent.
    """
    (frame,) = read_frames(_SOURCE.read_bytes(), "")
    places = np.linspace(-0.8, 0.8, _SLICES)
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, place in enumerate(places, 1):
            pixels = _narrowed(frame.pixels.astype(np.uint8), float(np.sqrt(1 - place**2)))
            entry = zipfile.ZipInfo(f"{number:02}.dcm")
            archive.writestr(entry, _instance(pixels, number), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _narrowed(pixels: Grey8, share: float) -> Grey8:
    height, width = pixels.shape
    centre = (width / 2, height / 2)
    turn = cv2.getRotationMatrix2D(centre, 0, share)
    return np.asarray(cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_AREA), np.uint8)


def _instance(pixels: Grey8, number: int) -> bytes:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = _uid(f"instance {number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid("study"), _uid("series")
    ds.FrameOfReferenceUID = _uid("frame of reference")
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.Modality, ds.BodyPartExamined, ds.SeriesDescription = "MR", "BRAIN", "T1 example, one slice in many sizes"
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "Radiolucent", 1, number
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "RM", "NONE", "", "3D"
    ds.EchoTime = ds.RepetitionTime = ds.EchoTrainLength = None
    ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], _THICKNESS
    ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ds.ImagePositionPatient = [-pixels.shape[1] / 2, -pixels.shape[0] / 2, _THICKNESS * number]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _uid(name: str) -> str:
    return generate_uid(entropy_srcs=["radiolucent example series", name])
