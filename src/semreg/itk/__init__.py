"""ITK's words for all this: classes with Set and Get, filters, metrics, images as tensors."""
