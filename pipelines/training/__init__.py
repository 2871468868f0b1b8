"""Training of a prior, from prepared heads, pictures or slices."""
