"""Verbs that look and do not touch: ls, info, path."""
