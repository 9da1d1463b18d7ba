"""Strokes in the viewer: drawn in the page, kept in the collection, shown at once."""
