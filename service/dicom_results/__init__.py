"""An answer for a series as standard DICOM objects, in the study of the source.

    report              Structured Report, TID 1500      findings, probabilities, model, references
    parametric_map      Parametric Map                   the saliency itself, float, in the frame of reference
    segmentation        Segmentation                     where it is strongest
    secondary_capture   Secondary Capture, one a slice   the overlays, for viewers that show nothing else
    presentation        Advanced Blending Presentation   source and map on one screen

`docs/dicom-results.md` says what viewers make of each.
"""
