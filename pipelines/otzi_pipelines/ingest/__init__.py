"""MRC files into tomograms: found, looked at, read once, published or put aside."""
