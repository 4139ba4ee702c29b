"""Weights files: the list of published files, and fetching and checking them."""
