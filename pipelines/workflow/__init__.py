"""Nipype: the steps as interfaces, workflows of these, and the engines that run them."""

import os

os.environ.setdefault("NIPYPE_NO_ET", "1")  # Nipype asks the network for newer versions otherwise
