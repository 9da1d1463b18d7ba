"""Pipelines: one module for each verb that makes a product."""
