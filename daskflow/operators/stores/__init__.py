"""Volumes in and out of stores."""
