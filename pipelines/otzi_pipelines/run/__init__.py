"""Pipelines over whole collections: stages, and the coordinator that brings them through."""
