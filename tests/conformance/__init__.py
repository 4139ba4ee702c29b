"""Tests against numbers made by the published code with filled weights.

`fill` makes the weights and inputs, `golden` reads the numbers, and the test modules compare. The published
code ran on a CPU in float32; no trained weight is involved.
"""
