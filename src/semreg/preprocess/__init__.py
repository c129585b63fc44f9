"""From two images as users give them to a pair that can be compared: checked, masked, in one frame."""
