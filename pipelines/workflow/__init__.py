"""Nipype: the steps as interfaces, workflows of these, and the engines that run them."""
