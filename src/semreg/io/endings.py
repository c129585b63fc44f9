"""How the files of some formats end, in small letters. Imports nothing."""

STIMULATE = (".spr", ".sdt")
AFNI = (".head", ".brik", ".brik.gz")
PHILIPS = (".par", ".rec")
"""Pairs, the header first; those of NIfTI and Analyze: ``nifti_header``."""
FREESURFER = (".mgh", ".mgz", ".mgh.gz")
MINC = (".mnc",)
