"""DICOM objects that are written, or read for what is no image: series, registrations, structures, doses."""
