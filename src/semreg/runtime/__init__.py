"""The process: memory, devices, step events, the terminal. Knows nothing of images."""
