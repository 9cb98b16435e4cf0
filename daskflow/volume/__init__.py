"""The lazy Volume, its expression and its evaluation, and the operator registry."""
