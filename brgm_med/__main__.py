"""`python -m brgm_med` is the command `brgm-med`, for launchers such as torchrun."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from brgm_med.pipelines.cli import main

    sys.exit(main())
