"""How far two segmentations agree: contingency tables, which add up over blocks, and scores from them."""
