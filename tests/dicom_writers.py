"""Writes valid DICOM series from grey arrays: classic MR, Enhanced MR, Ophthalmic Tomography (PS3.3 A.4, A.36, A.52).

Patients are invented, and every UID follows from `name`, so that the same call writes the same bytes. Turn a folder of
PNG or JPEG images into a series with

    python -m tests.dicom_writers IMAGES OUT --as enhanced-mr
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from tests.dicom_modules import (
    BRAIN,
    DATE,
    RETINA,
    TIME,
    Geometry,
    Pixels,
    base,
    enhanced_mr_modules,
    item,
    make_uid,
    mr_groups,
    multi_frame,
    ophthalmic_groups,
    ophthalmic_tomography_modules,
    put_pixels,
)


def saved(ds: Dataset) -> bytes:
    """The data set as a file, with preamble and file meta information."""
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def encoded(ds: Dataset, syntax: uid.UID) -> Dataset:
    """A copy of a grey instance in another transfer syntax; JPEG Baseline is lossy and takes 8 bits, others are exact.

    There is no encoder for HTJ2K.
    """
    copy = deepcopy(ds)
    copy.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian:
        copy.PixelData = ds.pixel_array.astype(ds.pixel_array.dtype.newbyteorder(">")).tobytes()
    elif syntax == uid.JPEGBaseline8Bit:
        frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns).astype(np.uint8)
        copy.PixelData = encapsulate([_jpeg(frame) for frame in frames])
    elif syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return _through_gdcm(ds, syntax)
    elif syntax.is_encapsulated:
        copy.file_meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
        copy.compress(syntax, generate_instance_uid=False)
    return copy


def _jpeg(frame: Pixels) -> bytes:
    out = BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=98)
    return out.getvalue()


def _through_gdcm(ds: Dataset, syntax: uid.UID) -> Dataset:
    """JPEG Lossless, which only GDCM writes, and only into files."""
    gdcm: Any = import_module("gdcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    name = "JPEGLosslessProcess14_1" if syntax == uid.JPEGLosslessSV1 else "JPEGLosslessProcess14"
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.dcm"), Path(folder, "out.dcm")
        source.write_bytes(saved(ds))
        reader.SetFileName(str(source))
        done = reader.Read()
        change.SetInput(reader.GetImage())
        done = done and change.Change()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not (done and writer.Write()):
            raise ValueError("GDCM cannot encode this")
        return dcmread(BytesIO(target.read_bytes()))


def in_photometric(ds: Dataset, photometric: str) -> Dataset:
    """A copy of a native unsigned MONOCHROME2 instance that looks the same: MONOCHROME1, PALETTE COLOR, RGB, YBR_FULL.

    RGB and YBR_FULL take 8 bits.
    """
    copy = deepcopy(ds)
    copy.PhotometricInterpretation = photometric
    stored, largest = ds.pixel_array, (1 << ds.BitsStored) - 1
    if photometric == "MONOCHROME1":
        copy.PixelData = (largest - stored).astype(stored.dtype).tobytes()
    elif photometric == "PALETTE COLOR":
        ramp = np.arange(largest + 1) * 257 if largest == 255 else np.arange(largest + 1) * 65535 // largest
        for colour in ("Red", "Green", "Blue"):
            copy.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [(largest + 1) % 65536, 0, 16])
            copy.add_new(f"{colour}PaletteColorLookupTableData", "OW", ramp.astype("<u2").tobytes())
    else:
        rgb = np.repeat(stored[..., np.newaxis], 3, axis=-1).astype(np.uint8)
        if photometric == "YBR_FULL":  # of grey: luma, and chroma in the middle
            rgb[..., 1:] = 128
        copy.SamplesPerPixel, copy.PlanarConfiguration = 3, 0
        copy.BitsAllocated, copy.BitsStored, copy.HighBit = 8, 8, 7
        copy.PixelData = rgb.tobytes() + bytes(rgb.size % 2)
        copy["PixelData"].VR = "OB"
    return copy


def classic_mr(
    images: Sequence[Pixels],
    name: str = "classic",
    *,
    geometry: Geometry = BRAIN,
    bits: int | None = None,
    window: tuple[float, float] | None = None,
    **elements: Any,
) -> list[Dataset]:
    """MR Image Storage (PS3.3 A.4), one instance for each grey image; 8-bit values are stored in 16 bits.

    `bits` is Bits Stored; `window` centre and width; `elements` are set on every instance last, by keyword,
    and deleted where None.
    """
    series: list[Dataset] = []
    for index, image in enumerate(images):
        ds = base(name, uid.MRImageStorage, make_uid(name, index), "MR", "T1 axial post contrast")
        ds.update(
            item(
                ImageType=["ORIGINAL", "PRIMARY", "OTHER"],
                AcquisitionDate=DATE,
                AcquisitionTime=TIME,
                BodyPartExamined="BRAIN",
                ScanningSequence="SE",
                SequenceVariant="NONE",
                ScanOptions="",
                MRAcquisitionType="2D",
                RepetitionTime="500",
                EchoTime="10",
                EchoTrainLength="1",
                MagneticFieldStrength="1.5",
                PatientPosition="HFS",
                AcquisitionNumber=1,
                InstanceNumber=index + 1,
                ImagePositionPatient=geometry.position(index),
                ImageOrientationPatient=list(geometry.orientation),
                PixelSpacing=list(geometry.spacing),
                SliceThickness=geometry.thickness,
                SpacingBetweenSlices=geometry.gap,
            )
        )
        put_pixels(ds, image.astype(np.uint16) if image.dtype == np.uint8 else image, bits)
        if window is not None:
            ds.WindowCenter, ds.WindowWidth = window
        series.append(_changed(ds, elements))
    return series


def enhanced_mr(
    images: Sequence[Pixels],
    name: str = "enhanced",
    *,
    geometry: Geometry = BRAIN,
    bits: int | None = None,
    window: tuple[float, float] | None = None,
    **elements: Any,
) -> Dataset:
    """Enhanced MR Image Storage (PS3.3 A.36), one frame for each grey image, all of one shape and dtype.

    `window` defaults to the range of the values; `elements` are set last, by keyword.
    """
    ds = base(name, uid.EnhancedMRImageStorage, make_uid(name, "instance"), "MR", "T1 axial post contrast")
    multi_frame(ds, images, geometry, bits)
    low, high = float(min(image.min() for image in images)), float(max(image.max() for image in images))
    ds.update(enhanced_mr_modules())
    groups = mr_groups(window or ((low + high + 1) / 2, high - low + 1), ds.Rows, ds.Columns)
    ds.SharedFunctionalGroupsSequence[0].update(groups)
    return _changed(ds, elements)


def ophthalmic_tomography(
    images: Sequence[Pixels],
    name: str = "tomography",
    *,
    geometry: Geometry = RETINA,
    laterality: str = "R",
    **elements: Any,
) -> Dataset:
    """Ophthalmic Tomography Image Storage (PS3.3 A.52), one frame for each grey image, all of one shape and dtype.

    Rows of the image lie along the surface of the retina, columns run into its depth. `elements` are set last, by
    keyword.
    """
    sop_class = uid.OphthalmicTomographyImageStorage
    ds = base(name, sop_class, make_uid(name, "instance"), "OPT", "Macula OCT")
    multi_frame(ds, images, geometry, None)
    ds.update(ophthalmic_tomography_modules(laterality))
    ds.SharedFunctionalGroupsSequence[0].update(ophthalmic_groups(laterality))
    return _changed(ds, elements)


def _changed(ds: Dataset, elements: dict[str, Any]) -> Dataset:
    """Set elements by keyword; None deletes."""
    for keyword, value in elements.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def read_images(folder: Path) -> list[Pixels]:
    """The PNG and JPEG images of a folder in order of their names, uint8, padded with black to the largest size."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    images: list[Pixels] = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("L")))
    if not images:
        raise SystemExit(f"{folder} holds no PNG or JPEG image")
    rows, columns = (max(image.shape[axis] for image in images) for axis in (0, 1))
    return [_padded(image, rows, columns) for image in images]


def _padded(image: Pixels, rows: int, columns: int) -> Pixels:
    top, left = (rows - image.shape[0]) // 2, (columns - image.shape[1]) // 2
    whole = np.zeros((rows, columns), image.dtype)
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole


def main() -> None:
    """Turn a folder of images into a series, with the folder's name as the seed of its UIDs."""
    parser = argparse.ArgumentParser(prog="python -m tests.dicom_writers", description=main.__doc__)
    parser.add_argument("images", type=Path, help="folder of PNG or JPEG images, one slice each, in order of names")
    parser.add_argument("out", type=Path, help="folder for the series; it is made where it is not there")
    parser.add_argument(
        "--as", dest="kind", choices=("classic-mr", "enhanced-mr", "ophthalmic-tomography"), default="classic-mr"
    )
    parser.add_argument("--name", help="seed of the UIDs; the folder's name without it")
    options = parser.parse_args()
    images, name = read_images(options.images), options.name or options.images.resolve().name
    if options.kind == "classic-mr":
        series = classic_mr(images, name, window=(128, 256))
    elif options.kind == "enhanced-mr":
        series = [enhanced_mr(images, name, window=(128, 256))]
    else:
        series = [ophthalmic_tomography(images, name)]
    options.out.mkdir(parents=True, exist_ok=True)
    for index, ds in enumerate(series):
        (options.out / f"{index + 1:04}.dcm").write_bytes(saved(ds))


if __name__ == "__main__":
    main()
