"""OME-Zarr and whole slides: images of any size in chunks, at several resolutions, read and written box by box."""
