"""Let the C allocator keep what it frees."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from its heap and not to give them back; True if it agreed.

    By default each large tensor is mapped afresh and its pages are cleared by the kernel on first touch, which
    costs more than the convolution that fills it (measured: 105 against 8 ms an image for a forward pass on two
    cores). Elsewhere than on glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, 2**31 - 1) and mallopt(m_top_pad, 64 << 20))
