"""The door to SpatialData: which elements there are, where they live, and how to move them.

The modules here import spatialdata, and so they are imported inside the functions of ``tl`` that need them.
"""
