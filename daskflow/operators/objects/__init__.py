"""Meshes and skeletons of labels."""
