"""Strokes as other programs keep them: ilastik projects, napari tables and TIFF label volumes."""
