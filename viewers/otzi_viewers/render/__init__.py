"""The offline renderer."""
