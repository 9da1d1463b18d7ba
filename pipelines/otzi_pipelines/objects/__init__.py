"""Objects: connected voxels of a class, counted, measured and numbered out of core."""
