"""Retrieval against rankings worked out by hand."""

import math

import pytest
import torch
from torch import nn

from clcae_lib.evaluation import neighbour_retrieval, recall_at_k


def test_recall_equals_a_ranking_worked_by_hand():
    keys = torch.eye(3)
    queries = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.5, 0.1], [0.7, 0.6, 0.1]])  # ranked 1st, 2nd, 3rd
    expected = {1: 1 / 3, 2: 2 / 3, 3: 1.0}
    assert recall_at_k(queries, keys, (1, 2, 3)) == pytest.approx(expected)


def test_recall_of_a_collapsed_embedding_is_zero():
    same = torch.ones(20, 4)
    assert recall_at_k(same, same, (1, 10, 20)) == {1: 0.0, 10: 0.0, 20: 1.0}


def test_recall_of_what_is_not_a_number_is_zero():
    good, bad = torch.eye(4), torch.full((4, 4), float("nan"))
    for queries, keys in ((bad, good), (good, bad), (bad, bad)):
        assert recall_at_k(queries, keys, (1, 3)) == {1: 0.0, 3: 0.0}


def test_recall_does_not_depend_on_chunks_and_differs_by_direction():
    source = torch.Generator().manual_seed(0)
    a = torch.randn(300, 8, generator=source)
    b = a + torch.randn(300, 8, generator=source)
    whole = recall_at_k(a, b, chunk=1000)
    assert recall_at_k(a, b, chunk=7) == whole
    assert 0.05 < whole[1] < whole[10] < 1
    assert recall_at_k(b, a) != whole


def test_recall_refuses_what_is_not_paired():
    with pytest.raises(ValueError, match="must be pairs"):
        recall_at_k(torch.ones(3, 2), torch.ones(4, 2))


class Echo(nn.Module):
    """A generator whose picture is its code, so that an encoder can be exact."""

    def __init__(self, dim=16):
        super().__init__()
        self.style_dim = dim
        self.scale = nn.Parameter(torch.tensor(2.0))

    def sample_w(self, n, *, generator):
        return torch.randn(n, self.style_dim, generator=generator) * self.scale

    def synthesis(self, w):
        return w.view(len(w), 1, 4, 4)


def test_neighbours_are_found_by_an_exact_encoder_and_by_chance_otherwise():
    exact = neighbour_retrieval(lambda x: x.flatten(1), lambda w: w, Echo(), codes=50, distractors=20)
    assert exact == dict.fromkeys((0.1, 0.2, 0.5, 1.0), 1.0)

    source = torch.Generator().manual_seed(3)
    blind = neighbour_retrieval(
        lambda x: torch.randn(len(x), 4, generator=source),
        lambda w: torch.randn(len(w), 4, generator=source),
        Echo(),
        codes=400,
        distractors=9,
        steps=(1.0,),
    )
    assert blind[1.0] == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 400))


def test_neighbours_further_off_are_easier():
    source = torch.Generator().manual_seed(5)

    def blurred(images):
        return images.flatten(1) + 0.5 * torch.randn(images.shape[0], 16, generator=source)

    accuracy = neighbour_retrieval(blurred, lambda w: w, Echo(), codes=150, steps=(0.05, 0.3, 2.0))
    assert accuracy[0.05] < accuracy[0.3] < accuracy[2.0]
