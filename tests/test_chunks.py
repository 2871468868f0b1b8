"""A generator in parts is the same generator: values and gradients."""

from __future__ import annotations
