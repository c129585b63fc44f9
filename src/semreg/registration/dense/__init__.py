"""Dense registration: a coarse discrete search, then gradient refinement on the features."""
