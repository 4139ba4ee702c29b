"""Measure every method of a comparison on the same images, codes, edits and details.

Section 4 of arXiv 2211.11448 compares fidelity, and shows edits without measuring them. Here edits are
measured too, and the distance of codes to the true ones, of edited images to true edits as a set, and how
much of a detail is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import Direction, sample_codes
from clcae_lib.evaluation.curves import at_equal_response
from clcae_lib.evaluation.edits import EditBench, measure_curve, true_edit
from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.reconstruction import reconstruction_records
from clcae_lib.evaluation.sets import set_distances
from clcae_lib.evaluation.styles import StyleStatistics
from clcae_lib.inversion import Inverter
from clcae_lib.metrics import code_distance, detail_kept

CODES_SEED = 7_001
"""Seed of the samples whose codes are inverted, the same for every method and training."""


@dataclass(frozen=True)
class Measured:
    """The measures of one method, one table for each question; every row names the method and its seed.

    Attributes:
        records: rows of images and spaces, as in `reconstruction_records`.
        curves: rows of images, factors and strengths, as in `measure_curve`.
        codes: rows of samples: `code_distance` of w, `style_distance`, `style_size` and `style_error`.
        details: rows of images with an accessory: `kept`, `kept_after_edit` and `lost`, their difference.
        sets: one row: Fréchet and kernel distance of edited images to true edits, with their conditions;
            `draw_seed` is the seed of the images' draw.
        reconstructions: reconstructions of the first images, in the method's own space.
        edited: the same images with the first factor edited.

    For `details`, `sets` and `edited` a factor is edited at the strength where it moves by one standard
    deviation on average, or at the largest strength if it never moves that far.
    """

    records: pd.DataFrame
    curves: pd.DataFrame
    codes: pd.DataFrame
    details: pd.DataFrame
    sets: pd.DataFrame
    reconstructions: Float[Tensor, "n 3 h w"]
    edited: Float[Tensor, "n 3 h w"]


@dataclass(frozen=True)
class Bench:
    """The images, directions and networks that methods are measured with.

    Attributes:
        directions: calibrated directions by factor, the same for all methods.
        images: held-out renders, of which the first `edits` are edited.
        factors: true factors of the renders.
        strengths: strengths of the edits, in standard deviations.
        accessories: number of images with an accessory that the generator has not seen.
    """

    judges: Judges
    directions: Mapping[str, Direction]
    images: Float[Tensor, "n 3 h w"]
    factors: Float[Tensor, "n k"]
    edits: int
    strengths: Sequence[float | int]
    accessories: int
    codes: int

    @classmethod
    def of(
        cls,
        judges: Judges,
        directions: Mapping[str, Direction],
        *,
        images: int = 128,
        edits: int = 64,
        strengths: Sequence[float | int] = (0.5, 1.0, 1.5, 2.0),
        accessories: int = 64,
        codes: int = 128,
    ) -> Bench:
        """Return a bench of the first images of the splits `test` and `accessories`.

        Raises:
            ValueError: `edits` is greater than `images`.
        """
        if edits > images:
            raise ValueError(f"edits={edits}: only images={images} images are inverted")
        test = judges.world.images("test", images)
        shown, factors = test.images(range(images)), test.factors(range(images))
        return cls(judges, directions, shown, factors, edits, strengths, accessories, codes)

    def measure(self, inverter: Inverter, *, method: str, space: str, seed: int = 0) -> Measured:
        """Return every measure of one inverter.

        Args:
            space: space that its images are decoded from and edited in.
        """
        inversion, judges, named = inverter.invert(self.images), self.judges, {"method": method, "seed": seed}
        names = [f"test/{k}" for k in range(len(self.images))]
        options = {"judges": judges, "image_ids": names, "inversion": inversion}

        def bench(count: int) -> EditBench:
            images, factors, codes = (x[:count] for x in (self.images, self.factors, inversion))
            return EditBench(inverter, images, factors, judges, space=space, inversion=codes)

        edits, shown = bench(self.edits), bench(min(8, self.edits))
        curves = measure_curve(edits, self.directions, strengths=self.strengths)
        found = at_equal_response(curves, n=1).set_index("factor")["strength"]
        strengths = found.fillna(max(self.strengths)).to_dict()
        first = next(iter(strengths.items()))
        return Measured(
            records=reconstruction_records(inverter, self.images, **named, **options),
            curves=curves.drop(columns=[c for c in curves if c.startswith("effect.")]).assign(**named),
            codes=self._codes(inverter).assign(**named),
            details=self._details(inverter, space, *first).assign(**named),
            sets=self._sets(edits, strengths).assign(**named),
            reconstructions=shown.unedited,
            edited=self._edited(shown, *first)[0],
        )

    def _edited(
        self, bench: EditBench, name: str, strength: float
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n k"]]:
        """Return images with one factor edited, and factors with it moved by one standard deviation."""
        signs, truth = true_edit(self.judges, bench.factors, name)
        return bench.edited(self.directions[name], signs * strength), truth

    @torch.no_grad()
    def _codes(self, inverter: Inverter) -> pd.DataFrame:
        """Return the distances of the inverted codes of samples to the true ones."""
        generator = inverter.generator
        truth = sample_codes(generator, self.codes, seed=CODES_SEED)
        images = torch.cat([generator.synthesis(part).clamp(-1, 1) for part in truth.split(64)])
        found = inverter.invert(images)
        distance = code_distance(found.w, truth, w_std=generator.w_std)
        frame = StyleStatistics.of(generator).measure(found.w_plus, truth=truth)
        return frame.assign(code_distance=distance.tolist(), image=range(self.codes))

    def _details(self, inverter: Inverter, space: str, factor: str, strength: float) -> pd.DataFrame:
        """Return how much of an accessory is kept, and kept after an edit of the factor."""
        world, rows = self.judges.world, range(self.accessories)
        strange = world.images("accessories", self.accessories)
        factors, worn = strange.factors(rows), strange.images(rows)
        bench = EditBench(inverter, worn, factors, self.judges, space=space)
        edited, changed = self._edited(bench, factor, strength)
        kept = detail_kept(bench.unedited, worn, world.render(factors))
        after = detail_kept(edited, strange.with_factors(rows, changed), world.render(changed))
        columns = {"kept": kept, "kept_after_edit": after, "lost": kept - after}
        values = {name: column.tolist() for name, column in columns.items()}
        return pd.DataFrame({"image": rows, "space": space, **values})

    def _sets(self, bench: EditBench, strengths: Mapping[str, float]) -> pd.DataFrame:
        """Return the distances of edited images to renders of the true edits, all factors together."""
        pairs = [self._edited(bench, name, strength) for name, strength in strengths.items()]
        made = torch.cat([edited for edited, _ in pairs])
        true = torch.cat([self.judges.world.render(truth) for _, truth in pairs])
        found = set_distances(made, true, judges=self.judges, count=len(made))
        return pd.DataFrame([found]).rename(columns={"seed": "draw_seed"})
