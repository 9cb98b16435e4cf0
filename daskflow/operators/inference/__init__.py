"""Convolutional nets."""
