"""DICOMweb towards archives (PS3.18): WADO-RS in, STOW-RS out, and the bodies of both."""
