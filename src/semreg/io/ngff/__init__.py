"""OME-Zarr: images of any size in chunks, at several resolutions. Read and written by zarr, which is imported then."""

from semreg.io.ngff.names import is_ngff, is_ngff_name, whole_slide
from semreg.io.ngff.pyramid import Pyramid, Resolution, open_pyramid
from semreg.io.ngff.writing import PyramidWriter

__all__ = ["Pyramid", "PyramidWriter", "Resolution", "is_ngff", "is_ngff_name", "open_pyramid", "whole_slide"]
