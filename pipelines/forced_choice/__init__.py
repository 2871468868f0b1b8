"""A forced-choice study (Marinescu et al., section A.1): raters choose, blindly, the image most like the true one.

make.py     pictures to a page that needs nothing else, and the key that says which letter is which method
key.py      the key and the raters' files, read strictly
tally.py    shares of the votes with intervals, a test against equal choice, agreement between raters
"""

from brgm_med.pipelines.forced_choice.make import make
from brgm_med.pipelines.forced_choice.tally import tally

__all__ = ["make", "tally"]
