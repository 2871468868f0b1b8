"""Priors on disk, and whose generators they are made of."""

DEFAULT = "brain-t1-coronal"
"""The prior that is meant where none is named."""
