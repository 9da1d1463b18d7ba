"""Synthetic tomograms with known truth."""
