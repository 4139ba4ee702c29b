"""Benchmark commands; tests do not measure time."""
