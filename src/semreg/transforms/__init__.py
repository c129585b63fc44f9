"""Transforms that travel: read from any tool, joined, inverted, applied to images and points, written for any tool.

A transform maps points of the fixed image to the moving image, in mm, LPS. So it brings an image from the moving to
the fixed side, and points from the fixed to the moving side; the inverse does the opposite of both.

The names of ``__init__.pyi``, each imported when it is first used, so that the tables of formats can be read without
SimpleITK.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
