"""The numerics: arrays and tensors in, numbers out. Nothing here knows a container, a plot or a progress bar."""
