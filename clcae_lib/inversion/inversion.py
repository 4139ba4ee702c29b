"""Inversion: the codes of a batch of images in W, W+ and F (arXiv 2211.11448, section 3.2).

No inverter looks for styles; only an edit in StyleSpace adds them, so they are kept as an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.inversion.decoder import Plain
from clcae_lib.models import Generator
from clcae_lib.models.backbone import Codes
from clcae_lib.spaces import SPACES, broadcast_w


@dataclass(frozen=True)
class Inversion:
    """The codes of a batch of images, and their decoder.

    Attributes:
        w: foundation codes.
        w_plus: one code per generator layer.
        feature: F, which replaces the generator's second activation at F's side (16x16 unless an encoder was
            trained otherwise); None if the inverter has no F.
        styles: offset that edits in StyleSpace have added to the styles of all layers; None without one.
        decoder: `Plain`, `Tuned` (PTI, noise maps), `Restoring` (HFGI), or `Editing` (the feature editor).
    """

    w: Float[Tensor, "n d"]
    w_plus: Float[Tensor, "n l d"]
    feature: Float[Tensor, "n c h w"] | None = None
    styles: Float[Tensor, "n s"] | None = None
    decoder: Plain = field(default_factory=Plain)

    @classmethod
    def from_codes(cls, codes: Codes) -> Inversion:
        """Return the inversion of a network's output, in float32 and without gradient."""
        return cls(*(part if part is None else part.detach().float() for part in codes))

    @classmethod
    def from_w(cls, w: Float[Tensor, "n d"], generator: Generator) -> Inversion:
        """Return the inversion of codes of W: the same code at every layer."""
        return cls(w, broadcast_w(w, generator.n_latent))

    @classmethod
    def cat(cls, parts: Sequence[Inversion]) -> Inversion:
        """Return several batches as one; they must have the same kinds of codes and decoders.

        Raises:
            ValueError: `parts` is empty, as for no images.
        """
        if not parts:
            raise ValueError("images: none were given; give at least one")
        return _join(parts)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.w)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Inversion:
        """Return the codes of some of the images; a single index keeps the batch dimension."""
        rows = [index] if isinstance(index, int) else index
        return self.map(lambda part: part[rows])

    def to(self, device: torch.device | str) -> Inversion:
        """Return the same codes on another device."""
        return self.map(lambda part: part.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> Inversion:
        """Return the inversion with `function` applied to every tensor, including the decoder's."""
        return _map(function, self)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that it can be decoded from, the most editable first."""
        return SPACES if self.feature is not None else SPACES[:2]

    def decode(
        self, generator: Generator, space: str = "f", *, noise: str = "fixed"
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the images, nominally in [-1, 1].

        Args:
            generator: generator of the inverter that made the codes.
            space: `w`, `w_plus`, or `f`: W+ with F inserted.

        Raises:
            ValueError: `space` is unknown, or there is no F.
        """
        if space not in self.spaces:
            known = ", ".join(map(repr, self.spaces))
            raise ValueError(f"space={space!r}: this inversion can be decoded from {known}")
        options: dict[str, Any] = {"noise": noise, "style_offsets": self.styles}
        if space == "w":
            return self.decoder.decode(generator, self.w, **options)
        feature = self.feature if space == "f" else None
        return self.decoder.decode(generator, self.w_plus, feature=feature, **options)


def _map(function: Callable[[Tensor], Tensor], part: Any) -> Any:
    """Apply the function to a tensor or to all tensors of a mapping or dataclass; keep other values."""
    if isinstance(part, Tensor):
        return function(part)
    if isinstance(part, Mapping):
        return {name: _map(function, value) for name, value in part.items()}
    if is_dataclass(part):
        return replace(part, **{f.name: _map(function, getattr(part, f.name)) for f in fields(part)})
    return part


def _join(parts: Sequence[Any]) -> Any:
    """Concatenate tensors, also inside mappings and dataclasses; for other values, return the first."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: _join([part[name] for part in parts]) for name in first}
    if is_dataclass(first):
        return replace(first, **{f.name: _join([getattr(p, f.name) for p in parts]) for f in fields(first)})
    return first
