"""What an inversion is: the codes of a batch of pictures in W, W+ and F (arXiv 2211.11448, section 3.2).

No inverter looks for styles; only an edit in StyleSpace adds them, so they are kept as an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.inversion.tuned import synthesise
from clcae_lib.models import Generator
from clcae_lib.models.codes import Codes
from clcae_lib.spaces import SPACES


@dataclass(frozen=True)
class Inversion:
    """The codes of a batch of pictures.

    Attributes:
        w: foundation codes.
        w_plus: one code a generator layer.
        feature: F, in the place of the generator's second activation at F's own side (16x16 unless an
            encoder was trained otherwise); None where the inverter has no F.
        styles: what edits in StyleSpace have added to the styles of every layer; None where none has.
        tuned: each picture's own values of some of the generator's tensors, by their names, with the batch in
            front: weights after pivotal tuning, or noise maps; None where it is the generator alone.
        lost: what the codes' picture lacks of each picture, where F is restored from it (HFGI); else None.
        restore: the network whose `feature(generator, lost, w_plus, styles=...)` makes F of it, for edits.
    """

    w: Float[Tensor, "batch dim"]
    w_plus: Float[Tensor, "batch layers dim"]
    feature: Float[Tensor, "batch channels height width"] | None = None
    styles: Float[Tensor, "batch style_channels"] | None = None
    tuned: Mapping[str, Tensor] | None = None
    lost: Float[Tensor, "batch 3 side side"] | None = None
    restore: nn.Module | None = None

    @classmethod
    def from_codes(cls, codes: Codes) -> Inversion:
        """The inversion that a network's output is, in float32 and without gradient."""
        return cls(*(part if part is None else part.detach().float() for part in codes))

    @classmethod
    def cat(cls, parts: Sequence[Inversion]) -> Inversion:
        """Return several batches as one; they must have the same kinds of codes.

        Raises:
            ValueError: there is no batch, as of no images.
        """
        if not parts:
            raise ValueError("images: there are none to invert; give at least one")
        kinds = zip(*(part._parts() for part in parts), strict=True)
        return cls(*map(_join, kinds))

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.w)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Inversion:
        """The codes of some of the pictures; a single index keeps the batch dimension."""
        rows = [index] if isinstance(index, int) else index
        return self._each(lambda part: part[rows])

    def to(self, device: torch.device | str) -> Inversion:
        """The same codes on another device."""
        return self._each(lambda part: part.to(device))

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
        options: dict[str, Any] = {"noise": noise, "style_offsets": self.styles, "tuned": self.tuned}
        if space == "w":
            return synthesise(generator, self.w, **options)
        return synthesise(generator, self.w_plus, feature=self.feature if space == "f" else None, **options)

    def _parts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def _each(self, function: Callable[[Tensor], Tensor]) -> Inversion:
        """The same with every tensor replaced by what the function makes of it."""
        return Inversion(*(_map(function, part) for part in self._parts()))


def _map(function: Callable[[Tensor], Tensor], part: Any) -> Any:
    """What the function makes of a tensor, or of each of a mapping's; anything else as it is."""
    if isinstance(part, Mapping):
        return {name: function(value) for name, value in part.items()}
    return function(part) if isinstance(part, Tensor) else part


def _join(parts: Sequence[Any]) -> Any:
    """The same part of several inversions as one; what is no tensor, a network or None, they share."""
    if isinstance(parts[0], Mapping):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else parts[0]
