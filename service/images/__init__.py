"""From the bytes of a file to frames of grey pixels: PNG, JPEG, DICOM in every transfer syntax."""
