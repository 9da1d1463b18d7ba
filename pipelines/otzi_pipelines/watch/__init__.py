"""Scheduled ingestion: folders looked at again and again; complete files become tomograms."""
