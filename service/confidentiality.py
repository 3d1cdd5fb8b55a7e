"""Which attributes may leave the house, and how the others are made harmless (PS3.15 Table E.1-1, Basic Profile).

Written the other way round than the table, so that attributes which it does not know yet, or which were typed into the
wrong place, cannot slip through: text, names, dates and bulk data are removed unless they are named here. Codes,
numbers and nested data are kept unless they are named here.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Text that says how an image was made, never of whom. None of it is in Table E.1-1.
KEPT_TEXT = _words("""
    CodeValue LongCodeValue URNCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning CodingSchemeName
    CodingSchemeRegistry CodingSchemeResponsibleOrganization MappingResourceName
    Manufacturer ManufacturerModelName SoftwareVersions AlgorithmName AlgorithmVersion AlgorithmParameters
    AlgorithmSource SegmentLabel SegmentDescription SegmentAlgorithmName LUTLabel LUTExplanation ModalityLUTType
    WindowCenterWidthExplanation DimensionDescriptionLabel StackID ReceiveCoilManufacturerName
    TransmitCoilManufacturerName ReceiveCoilName TransmitCoilName ImagedNucleus
    SequenceName PulseSequenceName ApplicableSafetyStandardDescription ConvolutionKernel RescaleType
    """)

# Bulk data that image and presentation objects are made of.
KEPT_BULK = _words("""
    PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths LUTData ICCProfile
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    AlphaPaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData
    SegmentedAlphaPaletteColorLookupTableData BlendingLookupTableData
    """)

# Type 2 in the objects that carry them: they stay, without a value.
EMPTIED = _words("""
    AccessionNumber StudyID StudyDate StudyTime ReferringPhysicianName PatientBirthDate PatientSex ContentDescription
    ContentCreatorName AcquisitionContextSequence ReferencedPerformedProcedureStepSequence PositionReferenceIndicator
    """)

# Type 1 in some object: replaced by what says nothing.
DUMMIES = {
    "ContentDate": "19000101",
    "ContentTime": "000000",
    "PresentationCreationDate": "19000101",
    "PresentationCreationTime": "000000",
    "AcquisitionDateTime": "19000101000000",
    "FrameAcquisitionDateTime": "19000101000000",
    "FrameReferenceDateTime": "19000101000000",
    "ContextGroupVersion": "19000101000000",
    "DateTime": "19000101000000",
    "Date": "19000101",
    "Time": "000000",
    "PersonName": "removed",
    "TextValue": "removed",
}

# Replaced by a keyed hash, the same for the same value.
PSEUDONYMS = _words("PatientID PatientName DeviceSerialNumber TrackingID")

# Of patients (10), trials (12), cameras and their places (16), requests, visits and results (32, 38, 4008), signatures
# and earlier values (400), files, printing and labels (4, 2100, 2200), curves and overlays (50xx, 60xx), owners of
# inspected objects (4010).
REMOVED_GROUPS = frozenset(
    [0x0004, 0x0010, 0x0012, 0x0016, 0x0032, 0x0038, 0x0400, 0x2100, 0x2200, 0x4008, 0x4010]
    + [first + offset for first in (0x5000, 0x6000) for offset in range(0, 0x100, 2)]
)
KEPT_IN_THEM = _words("PatientID PatientName PatientBirthDate PatientSex AnatomicalOrientationType")

# Codes, numbers and nested data that tell of people, places, orders or the way of an object.
REMOVED = _words("""
    ActualHumanPerformersSequence AdmittingDiagnosesCodeSequence AsserterIdentificationSequence
    AssessmentRequesterSequence AuthorIdentificationSequence AuthorObserverSequence
    ConsultingPhysicianIdentificationSequence ContentCreatorIdentificationCodeSequence CustodialOrganizationSequence
    DigitalSignaturesSequence EquipmentAdministratorSequence FlowIdentifierSequence GraphicAnnotationSequence
    HangingProtocolUserIdentificationCodeSequence HumanPerformerCodeSequence IconImageSequence
    InstitutionCodeSequence InstitutionalDepartmentTypeCodeSequence IntendedRecipientsOfResultsIdentificationSequence
    IssuerOfAccessionNumberSequence IssuerOfTheContainerIdentifierSequence IssuerOfTheSpecimenIdentifierSequence
    OperatorIdentificationSequence OrderFillerIdentifierSequence
    OrderPlacerIdentifierSequence OriginalAttributesSequence ParticipantSequence
    PerformedStationClassCodeSequence PerformedStationGeographicLocationCodeSequence
    PerformedStationNameCodeSequence PerformingPhysicianIdentificationSequence PersonIdentificationCodeSequence
    PhysiciansOfRecordIdentificationSequence PhysiciansReadingStudyIdentificationSequence ROICreatorSequence
    PrescriptionNotesSequence ROIInterpreterSequence
    ReasonForRequestedProcedureCodeSequence ReferencedPatientPhotoSequence
    ReferencedPatientSequence ReferencedRequestSequence ReferencedStudySequence ReferencedVisitSequence
    ReferringPhysicianIdentificationSequence RequestAttributesSequence ScheduledHumanPerformersSequence
    ScheduledPerformingPhysicianIdentificationSequence ScheduledStationClassCodeSequence
    ScheduledStationGeographicLocationCodeSequence ScheduledStationNameCodeSequence SpecimenPreparationSequence
    TransducerIdentificationSequence UDISequence VerbalSourceIdentifierCodeSequenceTrial
    VerifyingObserverIdentificationCodeSequence VerifyingObserverSequence
    """)

TEXT_VRS = _words("AE AS DA DT LO LT PN SH ST TM UC UN UR UT")
BULK_VRS = _words("OB OD OF OL OV OW UN")
NUMBER_VRS = _words("AT DS FD FL IS SL SS SV UL US UV")

# Text items of reports (PS3.16): the algorithm's name, version, parameters and maker (TID 4019), the observing device's
# name, manufacturer and model (TID 1004), the identifier of a measurement group (TID 1501).
KEPT_CONTENT = _words("111001 111002 111003 122405 121013 121014 121015 112039")
# Items about the subject (TID 1007): name, identifier, birth date, sex, age, species, breed.
REMOVED_CONTENT = _words("121029 121030 121031 121032 121033 121034 121036")
