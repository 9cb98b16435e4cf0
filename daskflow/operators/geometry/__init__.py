"""Boxes, channels and sections."""
