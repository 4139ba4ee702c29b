"""Measure how close a generator's samples are to its training images: the numbers on its card."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import in_batches, sample_codes
from clcae_lib.metrics import factor_distribution_distance, frechet_distance, precision_recall
from clcae_lib.worlds import World

SPLIT = "validation"
"""Split of the renders; it must have twice as many images as there are samples."""


class GeneratorMeasure:
    """Measures generators against the same renders, whose features are computed once.

    Features are those of the perceptual network, and factors are read by the attribute regressor, both in the
    role "measure".

    Args:
        samples: number of images in each of the three sets.

    Raises:
        WorldError: the world lacks one of the networks.
    """

    def __init__(
        self, world: World, *, samples: int = 5000, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.world, self.samples, self.seed, self.device = world, samples, seed, resolve_device(device)
        self.oracle = world.oracle("measure", self.device)  # first, because its absence has no remedy
        self.perceptual = world.perceptual("measure", self.device)
        self._renders: Tensor | None = None
        self._best: dict[str, object] = {}

    @torch.no_grad()
    def __call__(self, generator: nn.Module | None = None) -> dict[str, object]:
        """Compare samples with renders, and two disjoint sets of renders as the best possible result.

        Args:
            generator: generator that is measured; the world's own if None.

        Returns:
            Numbers for a card. `frechet`, `precision` and `recall`; for each state factor `factors`, the
            1-Wasserstein distance of its two distributions in its standard deviations, and `spread`, the
            standard deviation in the samples relative to that in the renders; `age_grey`, the correlation of
            age and grey hair, if the world has both. Each also as `..._renders` for renders against renders.
            `worst_factor`, `samples`, `seed`, `split`, `features`.
        """
        generator = self.world.generator(self.device) if generator is None else generator
        if self._renders is None:
            data, rows = self.world.images(SPLIT, 2 * self.samples), torch.arange(2 * self.samples)
            self._renders = in_batches(lambda i: self._read(data.images(i)), rows)
            self._best = self._compare(self._renders[self.samples :])
        codes = sample_codes(generator, self.samples, seed=self.seed)
        against = self._compare(in_batches(lambda w: self._read(generator.synthesis(w)), codes))
        return {
            **against,
            **{f"{name}_renders": value for name, value in self._best.items()},
            "worst_factor": max(against["factors"], key=against["factors"].get),
            "samples": self.samples,
            "seed": self.seed,
            "split": SPLIT,
            "features": getattr(self.perceptual, "name", ""),
        }

    def _read(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Return features, then factors."""
        images = images.to(self.device).clamp(-1, 1)
        return torch.cat([self.perceptual.pooled(images), self.oracle(images)], dim=1).float().cpu()

    def _compare(self, a: Float[Tensor, "n c"]) -> dict[str, object]:
        """Compare a set with the first half of the renders."""
        names, count = list(self.world.factor_names), len(self.world.factor_names)
        b = self._renders[: self.samples]
        precision, recall = precision_recall(a[:, :-count], b[:, :-count])
        found, true = a[:, -count:], b[:, -count:]
        distances = factor_distribution_distance(found, true, std=self.world.factor_std)
        measures = {
            "frechet": frechet_distance(a[:, :-count], b[:, :-count]),
            "precision": precision,
            "recall": recall,
            "factors": self._of_states(distances),
            "spread": self._of_states(found.std(0) / true.std(0).clamp(min=1e-6)),
        }
        if {"age", "hair_grey"} <= set(names):
            pair = found[:, [names.index("age"), names.index("hair_grey")]]
            measures["age_grey"] = round(float(torch.corrcoef(pair.T)[0, 1]), 4)
        return measures

    def _of_states(self, values: Float[Tensor, " k"]) -> dict[str, float]:
        named = dict(zip(self.world.factor_names, values.tolist(), strict=True))
        return {name: round(named[name], 4) for name in self.world.state_names}
