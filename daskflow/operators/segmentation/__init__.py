"""Labels: made, measured, renamed, scored."""
