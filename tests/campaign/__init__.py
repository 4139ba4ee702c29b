"""Trials on reliability and security that take too long for the tests; `make campaign` runs them."""
