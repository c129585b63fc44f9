"""Parts of the fixed image that move rigidly: which, how each moves, and the displacement around them."""
