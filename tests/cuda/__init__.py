"""What a real GPU must show: `pytest -m cuda tests/cuda`. Skipped where there is none."""
