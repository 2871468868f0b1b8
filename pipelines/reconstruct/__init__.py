"""Reconstruction of arrays: arrays in, arrays out, no file."""
