"""Convolutional nets over volumes: patches, their weights, blending, and the engines that run a net."""
