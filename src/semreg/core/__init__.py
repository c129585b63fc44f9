"""Values on grids: geometry, sampling, fields, their inverses, regularity. The one place that interpolates."""
