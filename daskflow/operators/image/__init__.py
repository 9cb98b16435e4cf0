"""Images: their values, and where they hold tissue."""
