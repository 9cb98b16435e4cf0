"""Patch grid, blending weights and engines that run a network on patches."""
