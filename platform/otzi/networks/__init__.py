"""Networks, their weights and cards, and checkpoints that others published."""
