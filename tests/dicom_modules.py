"""Modules and functional groups of which `tests.dicom_writers` makes images (PS3.3 C), with invented patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items

Pixels = NDArray[Any]  # grey `[H, W]`, uint8, uint16 or int16
DATE, TIME = "20240117", "101530"
_MR_FRAME_TYPE = ("ORIGINAL", "PRIMARY", "T1", "NONE")
ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's, for UIDs that need no registration


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where slices lie: the first one's position, direction cosines, and distances in mm."""

    origin: tuple[float, float, float] = (-120.0, -110.0, -40.0)
    orientation: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    spacing: tuple[float, float] = (0.9, 0.8)
    gap: float = 5.5
    thickness: float = 5.0

    def position(self, index: int) -> list[float]:
        """Image Position (Patient) of a slice."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return [round(float(value), 6) for value in np.asarray(self.origin) + index * self.gap * normal]


BRAIN, RETINA = Geometry(), Geometry((-3.0, 0.0, -2.0), spacing=(0.004, 0.012), gap=0.12, thickness=0.02)


def make_uid(*parts: object) -> str:
    """A UID that follows from its parts."""
    return uid.generate_uid(ROOT, [str(part) for part in parts])


def item(**elements: Any) -> Dataset:
    """A data set of elements by keyword."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, Items(value) if isinstance(value, list) and keyword.endswith("Sequence") else value)
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded concept (PS3.3 8.8)."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def base(name: str, sop_class: str, sop: str, modality: str, description: str) -> Dataset:
    """Patient, study, series, equipment and SOP common modules (PS3.3 C.7.1 to C.7.5, C.12.1)."""
    ds = item(
        SpecificCharacterSet="ISO_IR 100",
        SOPClassUID=sop_class,
        SOPInstanceUID=sop,
        StudyDate=DATE,
        SeriesDate=DATE,
        ContentDate=DATE,
        StudyTime=TIME,
        SeriesTime=TIME,
        ContentTime=TIME,
        AccessionNumber="A0001",
        Modality=modality,
        Manufacturer="Synthetic",
        ReferringPhysicianName="",
        StudyDescription="Synthetic study",
        SeriesDescription=description,
        ManufacturerModelName="Writer",
        DeviceSerialNumber="0",
        SoftwareVersions="1",
        PatientName="Subject^Synthetic",
        PatientID=f"SYN-{name}"[:64],
        PatientBirthDate="19500101",
        PatientSex="O",
        StudyInstanceUID=make_uid(name, "study"),
        SeriesInstanceUID=make_uid(name, "series"),
        StudyID="1",
        SeriesNumber=1,
        InstanceNumber=1,
        FrameOfReferenceUID=make_uid(name, "frame of reference"),
        PositionReferenceIndicator="",
    )
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, sop
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return ds


def put_pixels(ds: Dataset, stored: Pixels, bits: int | None = None) -> None:
    """Image Pixel module (PS3.3 C.7.6.3) of one grey frame `[H, W]`, or of several `[N, H, W]`."""
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    data = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"


def multi_frame(ds: Dataset, images: Sequence[Pixels], geometry: Geometry, bits: int | None) -> None:
    """Multi-frame Functional Groups and Dimension modules (PS3.3 C.7.6.16, C.7.6.17), stacked by position."""
    put_pixels(ds, np.stack(list(images)), bits)
    dimensions = make_uid(ds.SOPInstanceUID, "dimensions")
    ds.NumberOfFrames = len(images)
    ds.DimensionOrganizationSequence = Items([item(DimensionOrganizationUID=dimensions)])
    ds.DimensionIndexSequence = Items(
        [
            item(
                DimensionOrganizationUID=dimensions,
                DimensionIndexPointer=0x00209057,  # In-Stack Position Number
                FunctionalGroupPointer=0x00209111,  # Frame Content Sequence
                DimensionDescriptionLabel="Position in the stack",
            )
        ]
    )
    measures = item(
        PixelSpacing=list(geometry.spacing),
        SliceThickness=geometry.thickness,
        SpacingBetweenSlices=geometry.gap,
    )
    orientation = item(ImageOrientationPatient=list(geometry.orientation))
    ds.SharedFunctionalGroupsSequence = Items(
        [item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])]
    )
    ds.PerFrameFunctionalGroupsSequence = Items([])
    for index in range(len(images)):
        content = item(
            FrameAcquisitionDateTime=DATE + TIME,
            FrameReferenceDateTime=DATE + TIME,
            FrameAcquisitionDuration=1.0,
            StackID="1",
            InStackPositionNumber=index + 1,
            DimensionIndexValues=[index + 1],
        )
        position = item(ImagePositionPatient=geometry.position(index))
        ds.PerFrameFunctionalGroupsSequence.append(
            item(FrameContentSequence=[content], PlanePositionSequence=[position])
        )


def enhanced_mr_modules() -> Dataset:
    """Enhanced MR Image, MR Pulse Sequence and Acquisition Context modules (PS3.3 C.8.13.1, C.8.13.4, C.7.6.14)."""
    return item(
        ImageType=list(_MR_FRAME_TYPE),
        AcquisitionNumber=1,
        AcquisitionDateTime=DATE + TIME,
        AcquisitionDuration=60.0,
        AcquisitionContextSequence=[],
        PatientPosition="HFS",
        ResonantNucleus="1H",
        KSpaceFiltering="NONE",
        MagneticFieldStrength=1.5,
        ApplicableSafetyStandardAgency="IEC",
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ComplexImageComponent="MAGNITUDE",
        AcquisitionContrast="T1",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        PresentationLUTShape="IDENTITY",
        ContentQualification="RESEARCH",
        PulseSequenceName="SE",
        MRAcquisitionType="2D",
        EchoPulseSequence="SPIN",
        MultipleSpinEcho="NO",
        MultiPlanarExcitation="NO",
        PhaseContrast="NO",
        TimeOfFlightContrast="NO",
        SteadyStatePulseSequence="NONE",
        EchoPlanarPulseSequence="NO",
        SaturationRecovery="NO",
        SpectrallySelectedSuppression="NONE",
        OversamplingPhase="NONE",
        GeometryOfKSpaceTraversal="RECTILINEAR",
        RectilinearPhaseEncodeReordering="LINEAR",
        SegmentedKSpaceTraversal="SINGLE",
        NumberOfKSpaceTrajectories=1,
    )


def mr_groups(window: tuple[float, float], rows: int, columns: int) -> Dataset:
    """Functional groups that all frames of an Enhanced MR image share (PS3.3 C.8.13.5, C.7.6.16.2)."""
    return item(
        FrameVOILUTSequence=[item(WindowCenter=window[0], WindowWidth=window[1])],
        PixelValueTransformationSequence=[item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")],
        FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[code("12738006", "SCT", "Brain")])],
        MRImageFrameTypeSequence=[
            item(
                FrameType=list(_MR_FRAME_TYPE),
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent="MAGNITUDE",
                AcquisitionContrast="T1",
            )
        ],
        MRTimingAndRelatedParametersSequence=[
            item(
                RepetitionTime=500,
                FlipAngle=90,
                EchoTrainLength=1,
                RFEchoTrainLength=1,
                GradientEchoTrainLength=0,
                SpecificAbsorptionRateSequence=[
                    item(SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.1)
                ],
                GradientOutputType="DB_DT",
                GradientOutput=1.0,
                OperatingModeSequence=[item(OperatingModeType="GRADIENT", OperatingMode="IEC_NORMAL")],
            )
        ],
        MRFOVGeometrySequence=[
            item(
                InPlanePhaseEncodingDirection="ROW",
                MRAcquisitionFrequencyEncodingSteps=columns,
                MRAcquisitionPhaseEncodingStepsInPlane=rows,
                PercentSampling=100,
                PercentPhaseFieldOfView=100,
            )
        ],
        MREchoSequence=[item(EffectiveEchoTime=10.0)],
        MRModifierSequence=[
            item(
                InversionRecovery="NO",
                FlowCompensation="NONE",
                Spoiling="NONE",
                T2Preparation="NO",
                SpectrallySelectedExcitation="NONE",
                SpatialPresaturation="NONE",
                PartialFourier="NO",
                ParallelAcquisition="NO",
            )
        ],
        MRImagingModifierSequence=[
            item(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                TransmitterFrequency=63.9,
                PixelBandwidth=200.0,
            )
        ],
        MRReceiveCoilSequence=[
            item(
                ReceiveCoilName="HEAD",
                ReceiveCoilManufacturerName="Synthetic",
                ReceiveCoilType="VOLUME",
                QuadratureReceiveCoil="YES",
            )
        ],
        MRTransmitCoilSequence=[
            item(TransmitCoilName="BODY", TransmitCoilManufacturerName="Synthetic", TransmitCoilType="BODY")
        ],
        MRAveragesSequence=[item(NumberOfAverages=1)],
    )


def ophthalmic_tomography_modules(laterality: str) -> Dataset:
    """Modules of Ophthalmic Tomography images (PS3.3 C.8.17.5 to C.8.17.9, C.7.6.14).

    Table C.8.17.7-1 wants the three concatenation elements with exactly these values, as it allows no concatenation;
    dciodvfy wants them there, too, and then finds fault with them by the rules of the module for concatenations: the
    only three errors that it reports.
    """
    return item(
        ImageType=["ORIGINAL", "PRIMARY"],
        AcquisitionNumber=1,
        AcquisitionDateTime=DATE + TIME,
        AcquisitionDuration=0.5,
        AcquisitionContextSequence=[],
        ConcatenationFrameOffsetNumber=0,
        InConcatenationNumber=1,
        InConcatenationTotalNumber=1,
        PresentationLUTShape="IDENTITY",
        LossyImageCompression="00",
        BurnedInAnnotation="NO",
        AxialLengthOfTheEye=None,
        HorizontalFieldOfView=None,
        RefractiveStateSequence=[],
        EmmetropicMagnification=None,
        IntraOcularPressure=None,
        PupilDilated="",
        AcquisitionDeviceTypeCodeSequence=[code("392012008", "SCT", "Optical Coherence Tomography Scanner")],
        LightPathFilterTypeStackCodeSequence=[],
        DetectorType="CCD",
        IlluminationWaveLength=840.0,
        IlluminationPower=700.0,
        IlluminationBandwidth=50.0,
        DepthSpatialResolution=7.0,
        MaximumDepthDistortion=0.0,
        AlongScanSpatialResolution=14.0,
        MaximumAlongScanDistortion=0.0,
        AcrossScanSpatialResolution=14.0,
        MaximumAcrossScanDistortion=0.0,
        ImageLaterality=laterality,
        AnatomicRegionSequence=[code("5665001", "SCT", "Retina")],
    )


def ophthalmic_groups(laterality: str) -> Dataset:
    """Functional groups that all frames of an Ophthalmic Tomography image share."""
    return item(
        FrameAnatomySequence=[
            item(FrameLaterality=laterality, AnatomicRegionSequence=[code("5665001", "SCT", "Retina")])
        ]
    )
