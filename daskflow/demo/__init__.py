"""A synthetic volume and the whole pipeline on it."""
