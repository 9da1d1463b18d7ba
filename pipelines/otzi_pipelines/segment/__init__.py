"""Segmentation of whole tomograms."""
