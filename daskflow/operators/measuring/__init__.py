"""Properties of labels: sums over their voxels, block by block, and what follows from them."""
