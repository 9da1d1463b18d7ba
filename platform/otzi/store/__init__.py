"""The store: how a product lies on disk, is written whole, and is read."""
