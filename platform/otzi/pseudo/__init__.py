"""Pseudo-labels: image features and a forest turn a few strokes into dense soft labels."""
