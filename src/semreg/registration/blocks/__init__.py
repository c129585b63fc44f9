"""Registration of volumes beyond memory: coarse in one piece, then one spline whose objective is summed over blocks."""
