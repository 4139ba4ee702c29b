"""Measures of retrieval, inversion, edits and generators, and the intervals that go with them."""

from clcae_lib.evaluation.retrieval import neighbour_retrieval, recall_at_k

__all__ = ["neighbour_retrieval", "recall_at_k"]
