"""Translation, rigid, similarity and affine maps of points in mm, and the search for the one that aligns two images.

A map is a homogeneous matrix (E, E), float64, from points of the fixed image to points of the moving one. Nothing here
knows feature models: descriptors come in as a function.
"""
