"""Results: the files that are written, and what they say of themselves."""
