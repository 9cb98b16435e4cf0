"""Url in, store out: read and write boxes of voxels in every format."""
