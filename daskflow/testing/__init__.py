"""Test suites for authors of stores and operators: subclass one and run it with pytest."""
