"""Strokes of a person into dense pseudo-labels."""
