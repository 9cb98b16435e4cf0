"""Meshes, skeletons and other objects by label, beside the voxels of a precomputed layer."""
