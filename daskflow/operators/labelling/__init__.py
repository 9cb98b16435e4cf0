"""Connected components by blocks: label each block, find what touches across the seams, number the whole."""
