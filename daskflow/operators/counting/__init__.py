"""Voxels per label: counted block by block, merged in ranges of labels, written as tables."""
