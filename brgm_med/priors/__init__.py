"""Priors on disk, and whose generators they are made of."""

DEFAULT = "brain-t1-coronal"
"""The population prior that is meant where none is named."""

SELF, AUTO = "self", "auto"
"""Instead of a population prior's name: the prior that a scan's own planes teach, alone, or beside `DEFAULT`."""


def population(prior: str) -> str | None:
    """Name or folder of the population prior that `prior` asks for: `DEFAULT` for `AUTO`, none for `SELF`."""
    return {AUTO: DEFAULT, SELF: None}.get(prior, prior)
