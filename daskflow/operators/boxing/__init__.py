"""Where labels lie: tissue, and the box of every label, block by block."""
