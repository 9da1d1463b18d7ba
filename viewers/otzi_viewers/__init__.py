"""Viewers: products turned into something to look at."""
