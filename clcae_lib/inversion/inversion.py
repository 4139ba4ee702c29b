"""What an inversion is: the codes of a batch of pictures in W, W+ and F (arXiv 2211.11448, section 3.2).

No inverter looks for styles; only an edit in StyleSpace adds them, so they are kept as an offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.models import Generator
from clcae_lib.models.codes import Codes

SPACES = ("w", "w_plus", "f")


@dataclass(frozen=True)
class Inversion:
    """The codes of a batch of pictures.

    Attributes:
        w: foundation codes.
        w_plus: one code a generator layer.
        feature: F, in the place of the generator's second activation at F's own side (16x16 unless an
            encoder was trained otherwise); None where the inverter has no F.
        styles: what edits in StyleSpace have added to the styles of every layer; None where none has.
    """

    w: Float[Tensor, "batch dim"]
    w_plus: Float[Tensor, "batch layers dim"]
    feature: Float[Tensor, "batch channels height width"] | None = None
    styles: Float[Tensor, "batch style_channels"] | None = None

    @classmethod
    def from_codes(cls, codes: Codes) -> Inversion:
        """The inversion that a network's output is, in float32 and without gradient."""
        return cls(*(part if part is None else part.detach().float() for part in codes))

    @classmethod
    def cat(cls, parts: Sequence[Inversion]) -> Inversion:
        """Several batches as one; they must have the same kinds of codes."""
        kinds = zip(*(part._parts() for part in parts), strict=True)
        return cls(*(None if kind[0] is None else torch.cat(kind) for kind in kinds))

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.w)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Inversion:
        """The codes of some of the pictures; a single index keeps the batch dimension."""
        rows = [index] if isinstance(index, int) else index
        return Inversion(*(None if part is None else part[rows] for part in self._parts()))

    def to(self, device: torch.device | str) -> Inversion:
        """The same codes on another device."""
        return Inversion(*(None if part is None else part.to(device) for part in self._parts()))

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that it can be decoded from, the most editable first."""
        return SPACES if self.feature is not None else SPACES[:2]

    def decode(
        self, generator: Generator, space: str = "f", *, noise: str = "fixed"
    ) -> Float[Tensor, "batch 3 side side"]:
        """The pictures, nominally in [-1, 1].

        Args:
            generator: of the inverter that made the codes.
            space: `w`, `w_plus`, or `f`: W+ with F inserted.
            noise: as in `Generator.synthesis`.

        Raises:
            ValueError: there is no such space, or no F.
        """
        if space not in self.spaces:
            known = ", ".join(map(repr, self.spaces))
            raise ValueError(f"space={space!r}: this inversion can be decoded from {known}")
        options = {"noise": noise, "style_offsets": self.styles}
        if space == "w":
            return generator.synthesis(self.w, **options)
        return generator.synthesis(self.w_plus, feature=self.feature if space == "f" else None, **options)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.w, self.w_plus, self.feature, self.styles
