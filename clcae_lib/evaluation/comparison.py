"""One bench for every method of a comparison: the same pictures, codes, edits and details for all of them.

What is compared in arXiv 2211.11448, section 4 (fidelity, and edits by eye) is measured here, and with it
what it costs: how near codes lie to the true ones, how edits do at equal response, how far edited pictures
are from true ones as a set, and how much of what the generator never saw is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import Direction, apply, sample_codes
from clcae_lib.evaluation.curves import measure_curve
from clcae_lib.evaluation.details import detail_table
from clcae_lib.evaluation.editability import true_edit
from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.precision import StyleSpace, code_distance, style_alignment
from clcae_lib.evaluation.reconstruction import decode
from clcae_lib.evaluation.records import reconstruction_records
from clcae_lib.evaluation.sets import set_distances
from clcae_lib.inversion import Inversion, Inverter

CODES_SEED = 7_001
"""Of the samples whose true codes are asked for; the same for every method and training."""


@dataclass(frozen=True)
class Measured:
    """What one method scored, a table for each question; every row names the method and its seed.

    Attributes:
        records: of each picture and space, as `reconstruction_records` gives them.
        curves: of each picture, factor and strength, as `measure_curve` gives them.
        codes: of each sample: `code_distance` of w, `style_distance`, `style_size` and `style_error`.
        details: of each accessory, as `detail_table` gives them, in the method's own space.
        sets: one row: Fréchet and kernel distance of edited pictures to true edits, and how they were taken;
            `draw_seed` is that of the pictures' draw.
        pictures: reconstructions of the first pictures, in the method's own space.
        edited: the same, with the first factor edited by one standard deviation.
    """

    records: pd.DataFrame
    curves: pd.DataFrame
    codes: pd.DataFrame
    details: pd.DataFrame
    sets: pd.DataFrame
    pictures: Float[Tensor, "n 3 h w"]
    edited: Float[Tensor, "n 3 h w"]


@dataclass(frozen=True)
class Bench:
    """What methods are measured on.

    Attributes:
        judges: the copies that measure.
        directions: calibrated, by factor; those of InterFaceGAN or others, the same for all methods.
        images: held-out renders, of which the first `edits` are edited.
        factors: their true factors.
        edits: how many pictures are edited.
        strengths: of the edits, in standard deviations.
        accessories: how many pictures of what the generator never saw.
        codes: samples whose codes are asked for.
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
        """A bench of the first pictures of the split `test` and of the accessories' split.

        Raises:
            ValueError: more pictures are to be edited than there are.
        """
        if edits > images:
            raise ValueError(f"edits={edits}: only images={images} pictures are inverted")
        test = judges.world.images("test", images)
        shown, factors = test.images(range(images)), test.factors(range(images))
        return cls(judges, directions, shown, factors, edits, strengths, accessories, codes)

    def measure(self, inverter: Inverter, *, method: str, space: str, seed: int = 0) -> Measured:
        """Everything about one inverter.

        Args:
            inverter: to be measured.
            method: its name in tables.
            space: what its pictures are decoded from, and edited in.
            seed: of its training.
        """
        inversion = inverter.invert(self.images)
        first = inversion[: self.edits]
        names = [f"test/{k}" for k in range(len(self.images))]
        records = reconstruction_records(
            inverter,
            self.images,
            method=method,
            seed=seed,
            judges=self.judges,
            image_ids=names,
            inversion=inversion,
        )
        named = {"method": method, "seed": seed}
        curves = measure_curve(
            inverter,
            self.directions,
            self.images[: self.edits],
            self.factors[: self.edits],
            judges=self.judges,
            strengths=self.strengths,
            space=space,
            inversion=first,
        )
        name = next(iter(self.directions))
        return Measured(
            records=records,
            curves=curves.drop(columns=[c for c in curves if c.startswith("effect.")]).assign(**named),
            codes=self._codes(inverter).assign(**named),
            details=self._details(inverter, space).assign(**named),
            sets=self._sets(inverter, first, space).assign(**named),
            pictures=decode(inverter, first[:8], space),
            edited=self._edited(inverter, first[:8], name, self.factors[:8], space),
        )

    def _edited(
        self, inverter: Inverter, inversion: Inversion, name: str, factors: Tensor, space: str
    ) -> Float[Tensor, "n 3 h w"]:
        """Pictures with one factor edited by one standard deviation, towards the side with more room."""
        signs, _ = true_edit(self.judges, factors[: len(inversion)], name)
        moved = apply(inverter.generator, inversion, self.directions[name], signs.to(inversion.w))
        return decode(inverter, moved, space)

    @torch.no_grad()
    def _codes(self, inverter: Inverter) -> pd.DataFrame:
        """How near the codes of samples lie to the true ones."""
        generator = inverter.generator
        truth = sample_codes(generator, self.codes, seed=CODES_SEED)
        pictures = torch.cat([generator.synthesis(part).clamp(-1, 1) for part in truth.split(64)])
        found = inverter.invert(pictures)
        distance = code_distance(found.w, truth, w_std=generator.w_std)
        frame = style_alignment(generator, found.w_plus, space=StyleSpace.of(generator), truth=truth)
        return frame.assign(code_distance=distance.tolist(), image=range(self.codes))

    def _details(self, inverter: Inverter, space: str) -> pd.DataFrame:
        """How much of an accessory is kept, and kept after the first edit."""
        world, rows = self.judges.world, range(self.accessories)
        strange = world.images("accessories", self.accessories)
        factors, worn = strange.factors(rows), strange.images(rows)
        name = next(iter(self.directions))
        _, changed = true_edit(self.judges, factors, name)
        inversion = inverter.invert(worn)
        return detail_table(
            {space: decode(inverter, inversion, space)},
            edited={space: self._edited(inverter, inversion, name, factors, space)},
            worn=worn,
            bare=world.render(factors),
            worn_edited=strange.with_factors(rows, changed),
            bare_edited=world.render(changed),
        )

    def _sets(self, inverter: Inverter, inversion: Inversion, space: str) -> pd.DataFrame:
        """Edited pictures against renders of the true edits, all factors together."""
        factors = self.factors[: self.edits]
        pairs = [
            (
                self._edited(inverter, inversion, name, factors, space),
                self.judges.world.render(true_edit(self.judges, factors, name)[1]),
            )
            for name in self.directions
        ]
        made, true = (torch.cat(side) for side in zip(*pairs, strict=True))
        found = set_distances(made, true, judges=self.judges, count=len(made))
        return pd.DataFrame([found]).rename(columns={"seed": "draw_seed"})
