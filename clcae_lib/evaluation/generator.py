"""How near a generator's samples come to the images it learned from: the numbers on its card."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import in_batches, sample_codes
from clcae_lib.metrics import factor_distribution_distance, frechet_distance, precision_recall
from clcae_lib.worlds import World


class GeneratorMeasure:
    """Measures generators against the same renders, which the judges read once.

    Features are those of the perceptual judge that measures; factors are read by the oracle that measures.

    Args:
        world: its renders and judges.
        samples: number of images in each of the three sets.
        seed: of the codes.
        device: where the networks run.
        split: source of the renders; it needs twice as many images as `samples`.
        batch_size: images at once.
    """

    def __init__(
        self,
        world: World,
        *,
        samples: int = 5000,
        seed: int = 0,
        device: torch.device | str = "cpu",
        split: str = "validation",
        batch_size: int = 64,
    ) -> None:
        self.world, self.samples, self.seed = world, samples, seed
        self.device = resolve_device(device) if isinstance(device, str) else device
        self.split, self.batch_size = split, batch_size
        self.oracle = world.oracle("measure", self.device)  # first: a world without one has no remedy
        self.perceptual = world.perceptual("measure", self.device)
        self._renders: Tensor | None = None
        self._best: dict[str, object] = {}

    @torch.no_grad()
    def __call__(self, generator: nn.Module) -> dict[str, object]:
        """Compare samples with renders, and two disjoint sets of renders as the best there can be.

        Returns:
            Numbers for a card. `frechet`, `precision` and `recall`; for each state factor `factors`, the
            1-Wasserstein distance of its two distributions in its standard deviations, and `spread`, the
            standard deviation in the samples as a share of that in the renders; `age_grey`, the correlation
            of age and grey hair, where the world has both. Each also as `..._renders` for renders against
            renders. `worst_factor`, `samples`, `seed`, `split`, `features`.
        """
        if self._renders is None:
            data, rows = self.world.images(self.split, 2 * self.samples), torch.arange(2 * self.samples)
            self._renders = in_batches(lambda i: self._judge(data.images(i)), rows, size=self.batch_size)
            self._best = self._compare(self._renders[self.samples :])
        codes = sample_codes(generator, self.samples, seed=self.seed)
        drawn = in_batches(lambda w: self._judge(generator.synthesis(w)), codes, size=self.batch_size)
        against = self._compare(drawn)
        return {
            **against,
            **{f"{name}_renders": value for name, value in self._best.items()},
            "worst_factor": max(against["factors"], key=against["factors"].get),
            "samples": self.samples,
            "seed": self.seed,
            "split": self.split,
            "features": getattr(self.perceptual, "name", ""),
        }

    def _judge(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Features, then factors."""
        images = images.to(self.device).clamp(-1, 1)
        return torch.cat([self.perceptual.pooled(images), self.oracle(images)], dim=1).float().cpu()

    def _compare(self, a: Float[Tensor, "n c"]) -> dict[str, object]:
        """Compare set `a` with the first half of the renders."""
        world, count = self.world, len(self.world.factor_names)
        b = self._renders[: self.samples]
        manifold = precision_recall(a[:, :-count], b[:, :-count])
        found, true = a[:, -count:], b[:, -count:]
        distances = factor_distribution_distance(found, true, std=world.factor_std)
        return {
            "frechet": frechet_distance(a[:, :-count], b[:, :-count]),
            "precision": manifold.precision,
            "recall": manifold.recall,
            "factors": self._named(distances),
            "spread": self._named(found.std(0) / true.std(0).clamp(min=1e-6)),
            **self._age_grey(found),
        }

    def _named(self, values: Float[Tensor, " k"]) -> dict[str, float]:
        named = dict(zip(self.world.factor_names, values.tolist(), strict=True))
        return {name: round(named[name], 4) for name in self.world.state_names}

    def _age_grey(self, factors: Float[Tensor, "n k"]) -> dict[str, float]:
        names = list(self.world.factor_names)
        if not {"age", "hair_grey"} <= set(names):
            return {}
        pair = factors[:, [names.index("age"), names.index("hair_grey")]]
        return {"age_grey": round(float(torch.corrcoef(pair.T)[0, 1]), 4)}


def evaluate_generator(
    world: World, *, generator: nn.Module | None = None, **options: object
) -> dict[str, object]:
    """Measure a generator, the world's own if None, as `GeneratorMeasure` does; it takes the options."""
    measure = GeneratorMeasure(world, **options)
    return measure(world.generator(measure.device) if generator is None else generator)
