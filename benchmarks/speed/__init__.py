"""Seconds and memory: by stage, by number of cells, against other tools and against the usual preprocessing."""
