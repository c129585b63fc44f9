"""Dense features of images: what the registration compares."""
