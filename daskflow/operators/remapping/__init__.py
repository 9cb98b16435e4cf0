"""Tables from label to label, and blocks renamed by them."""
