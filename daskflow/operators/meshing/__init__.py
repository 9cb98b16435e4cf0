"""Meshing by blocks: surfaces of labels, their simplification, and levels of detail."""
