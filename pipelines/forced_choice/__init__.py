"""The forced-choice study of the paper's supplement A.1: a page for raters, and the count of what they chose."""

from brgm_med.pipelines.forced_choice.make import make
from brgm_med.pipelines.forced_choice.tally import tally

__all__ = ["make", "tally"]
