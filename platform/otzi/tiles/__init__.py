"""Tiles: overlapping inference, blended so that the weights sum exactly."""
