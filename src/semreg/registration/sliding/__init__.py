"""A part of the fixed image that slides along its surroundings: where the wall is, and a displacement for each side."""
