"""Skeletons by blocks: trace the labels of each block, join the pieces of each label, write them."""
