"""Verb evaluate: how well a segmentation agrees with a truth, over whole volumes."""
