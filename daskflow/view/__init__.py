"""Volumes in Neuroglancer, and pictures of them."""
