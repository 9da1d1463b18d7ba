"""A network from labelled tomograms: crops, losses, the loop and its checkpoints."""
