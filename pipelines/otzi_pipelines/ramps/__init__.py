"""Ramps: from which probability on a class is seen."""
