"""How near a generator's samples come to the pictures it learned from: the numbers on its card."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import in_batches, sample_codes
from clcae_lib.evaluation.metrics import factor_distribution_distance, frechet_distance, precision_recall
from clcae_lib.worlds import World


@torch.no_grad()
def evaluate_generator(
    world: World,
    *,
    samples: int = 5000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    generator: nn.Module | None = None,
    split: str = "validation",
    batch_size: int = 64,
) -> dict[str, object]:
    """Samples against renders, and two disjoint sets of renders against each other as the best there can be.

    Features are those of the perceptual judge that measures; factors are read by the oracle that measures.

    Args:
        world: its renders and judges.
        samples: how many pictures in each of the three sets.
        seed: of the codes.
        device: where the networks run.
        generator: another than the world's own, for example one still in training.
        split: where the renders come from; it needs twice as many as `samples`.
        batch_size: pictures at once.

    Returns:
        Numbers for a card. `frechet`, `precision` and `recall`, each also as `..._renders` for renders
        against renders; `factors` and `factors_renders`: for each state factor the 1-Wasserstein distance of
        its two distributions, in its standard deviations; `worst_factor`, `samples`, `seed`, `split`,
        `features`.
    """
    device = resolve_device(device) if isinstance(device, str) else device
    oracle, perceptual = world.oracle("measure", device), world.perceptual("measure", device)
    generator = world.generator(device) if generator is None else generator
    data = world.images(split, 2 * samples)

    def judge(images: Tensor) -> Tensor:
        images = images.to(device).clamp(-1, 1)
        return torch.cat([perceptual.pooled(images), oracle(images)], dim=1).cpu()

    codes, rows = sample_codes(generator, samples, seed=seed), torch.arange(2 * samples)
    drawn = in_batches(lambda w: judge(generator.synthesis(w)), codes, size=batch_size)
    renders = in_batches(lambda i: judge(data.images(i)), rows, size=batch_size)
    count = len(world.factor_names)
    against = _compare(world, drawn, renders[:samples], factors=count)
    best = _compare(world, renders[samples:], renders[:samples], factors=count)
    worst = max(against["factors"], key=against["factors"].get)
    facts = {"samples": samples, "seed": seed, "split": split, "features": getattr(perceptual, "name", "")}
    return {**against, **{f"{k}_renders": v for k, v in best.items()}, "worst_factor": worst, **facts}


def _compare(
    world: World, a: Float[Tensor, "n c"], b: Float[Tensor, "m c"], *, factors: int
) -> dict[str, object]:
    """Set `a` against set `b`; the last `factors` columns are factors, those before them features."""
    manifold = precision_recall(a[:, :-factors], b[:, :-factors])
    distances = factor_distribution_distance(a[:, -factors:], b[:, -factors:], std=world.factor_std)
    named = dict(zip(world.factor_names, distances.tolist(), strict=True))
    return {
        "frechet": frechet_distance(a[:, :-factors], b[:, :-factors]),
        "precision": manifold.precision,
        "recall": manifold.recall,
        "factors": {name: round(named[name], 4) for name in world.state_names},
    }
