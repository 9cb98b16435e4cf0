"""What is known of a stored layer beside its voxels: info, verify, remove, correct, provenance."""
