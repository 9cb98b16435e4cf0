"""Coarser levels of a volume: kernels, geometry, and the stages that write them."""
