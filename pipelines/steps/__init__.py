"""The steps, one file each: paths in, paths out.

`super_resolve` is a name of this package itself: bundles call it so in `configs/inference.json`.
"""

from brgm_med.pipelines.steps.super_resolution import super_resolve

__all__ = ["super_resolve"]
