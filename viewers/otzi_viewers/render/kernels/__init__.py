"""The kernel's one source, what it is told, and how it is compiled for this machine."""
