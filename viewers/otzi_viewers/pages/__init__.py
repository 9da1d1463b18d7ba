"""The pages around Neuroglancer: the list of tomograms, and the tools beside an open one."""
