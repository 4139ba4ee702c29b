"""The pure half of the explorer: a state to pictures and measures, or an error in a sentence.

It inverts (arXiv 2211.11448, section 3), edits W+ and carries F along (section 3.4), and measures what an
edit changed beside what it was asked to change (section 4.3). Nothing here knows of widgets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clcae_lib.devices import resolve_device
from clcae_lib.editing import Direction, apply_all, channel_spread
from clcae_lib.editing.named import SAMPLES
from clcae_lib.explorer._controls import Control, find_controls
from clcae_lib.explorer._decode import feature_offset, pixels
from clcae_lib.explorer._meter import Meter
from clcae_lib.explorer._recent import Recent
from clcae_lib.explorer._sources import Sources
from clcae_lib.explorer.identity import identity_basis, off
from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.spaces import broadcast_w
from clcae_lib.worlds import World, WorldError, get_world, world_names

KEPT = 24
"""Inversions kept, the least recently used forgotten first."""
STRIP = 5
"""Pictures of a strip."""
BRIGHTEN = 3
"""How much brighter than it is a difference is shown."""

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Frame:
    """What the explorer shows of a state.

    Attributes:
        before: the source's picture, without truncation, mixing and edits.
        after: the state's picture.
        difference: their absolute difference, brightened threefold.
        strip: pictures over the range of the control `strip`; empty for none.
        strip_strengths: its strength in each of them.
        readout: a row for each factor; columns before, after and change, in the factor's standard deviations,
            read by the oracle in the role "measure"; None where the world has none.
        identity: cosine, -1 to 1, of who is seen before and after; None where the world cannot tell.
    """

    before: Picture
    after: Picture
    difference: Picture
    strip: tuple[Picture, ...] = ()
    strip_strengths: tuple[float, ...] = ()
    readout: pd.DataFrame | None = None
    identity: float | None = None


@dataclass
class _Start:
    """A source's code in the space that is decoded, before any change, and what was worked out from it."""

    w: Float[Tensor, "1 d"]
    rows: Float[Tensor, "1 l d"]
    offset: Float[Tensor, "1 c h w"] | None
    facts: Recent = field(default_factory=Recent)


class _Codes(NamedTuple):
    """Codes in W, rows of W+ and an offset in StyleSpace: a source's after changes, or changes alone."""

    w: Float[Tensor, "1 d"]
    rows: Float[Tensor, "1 l d"]
    styles: Float[Tensor, "1 s"]


class Studio:
    """Renders the states of one world; several threads may call it at once.

    Args:
        world: what is shown.
        generator: the world's own.
        controls: by key, from `find_controls`.
        device: where the networks run.

    Attributes:
        worlds: names of all the worlds there are.
        methods: presets of encoders that the world has weights of.
        gallery_size: pictures in the gallery.
        rows: L, rows of W+.
        side: of the pictures, in pixels.
        controls: what can be changed, by key, in the order shown.
    """

    def __init__(
        self, world: World, generator: Generator, controls: Mapping[str, Control], *, device: torch.device
    ) -> None:
        self.world, self.generator, self.device = world, generator, device
        self.controls = MappingProxyType(dict(controls))
        self.worlds = world_names()
        self.rows, self.side = generator.n_latent, generator.size
        self._sources = Sources(world, generator, device)
        self.methods, self.gallery_size = self._sources.methods, self._sources.gallery_size
        self._meter = Meter.of(world, device)
        self._starts, self._embed = Recent(KEPT), Recent(1)
        self._spread = channel_spread(generator).clamp(min=1e-6)
        self._steps = {key: self._unit_step(control.direction) for key, control in self.controls.items()}

    @classmethod
    def open(
        cls,
        world: str | World = "portraits",
        *,
        device: torch.device | str = "auto",
        samples: int = SAMPLES,
        factors: Sequence[str] | None = None,
    ) -> "Studio":
        """The studio of a world: a second, or a minute or so the first time, when directions are looked for.

        Args:
            world: or its name.
            device: "auto", "cpu", "cuda", ...
            samples: codes that directions are found from.
            factors: which get a named direction; a choice of the world's state factors if None.

        Raises:
            ExplorerError: there is no such world, or it has no generator.
        """
        place = resolve_device(device) if isinstance(device, str) else device
        try:
            world = get_world(world)
            generator = world.generator(place)
            controls = find_controls(world, generator, factors=factors, samples=samples, device=place)
        except (WorldError, ValueError, FileNotFoundError) as error:
            raise ExplorerError(str(error)) from error
        return cls(world, generator, controls, device=place)

    @torch.inference_mode()
    def picture(self, state: State) -> Picture:
        """The state's picture alone: one pass of the generator once the source's code is known.

        Raises:
            ExplorerError: the state asks for what this world does not have.
        """
        return self._draw(state)

    @torch.inference_mode()
    def preview(self, state: State, side: int) -> Picture:
        """The picture at a lower resolution, which leaves the upper layers out.

        Args:
            state: as in `picture`.
            side: a power of two from 4 to the world's side.

        Raises:
            ExplorerError: as `picture`, or there is no such resolution.
        """
        if side not in self.generator.channels:
            known = ", ".join(map(str, self.generator.channels))
            raise ExplorerError(f"side={side}: this generator draws at {known} pixels")
        return self._draw(state, stop_at=side)

    @torch.no_grad()
    def frame(self, state: State) -> Frame:
        """Everything that is shown of a state.

        Raises:
            ExplorerError: as `picture`.
        """
        start = self._start(state)
        before = start.facts.get("image", lambda: self._decode(start, start.rows))
        strengths = self._strip_strengths(state)
        shown = [state, *(state.with_edit(state.strip or "", s) for s in strengths)]
        edited = [self._edited(s, start) for s in shown]
        rows, styles = torch.cat([e.rows for e in edited]), torch.cat([e.styles for e in edited])
        images = self._decode(start, rows, styles)
        seen = start.facts.get("reading", lambda: self._meter.read(before))
        readout, identity = self._meter.compare(seen, self._meter.read(images[:1]))
        first, *strip = (pixels(image) for image in images)
        picture = pixels(before[0])
        return Frame(picture, first, _difference(picture, first), tuple(strip), strengths, readout, identity)

    @torch.no_grad()
    def inversion(self, state: State) -> Inversion:
        """The codes after everything the state does.

        They decode to the picture: from "f" where there is a feature, from "w_plus" elsewhere. In the
        space "w", the rows of `w_plus` start as copies of `w`.

        Raises:
            ExplorerError: as `picture`.
        """
        start = self._start(state)
        w, rows, offset = self._edited(state, start)
        styles = offset if offset.any() else None
        if start.offset is None:
            return Inversion(w, rows, None, styles)
        feature = self.generator.activation(rows, style_offsets=styles) + start.offset
        return Inversion(w, rows, feature, styles)

    def original(self, state: State) -> Picture | None:
        """The picture that was inverted; None for a sampled code.

        Raises:
            ExplorerError: as `picture`.
        """
        return None if state.source == "seed" else pixels(self._sources.target(state)[0])

    def thumbnails(self, indices: Iterable[int]) -> list[Picture]:
        """Pictures of the gallery.

        Raises:
            ExplorerError: an index is outside it.
        """
        return [pixels(image) for image in self._sources.gallery(list(indices))]

    def _draw(self, state: State, *, stop_at: int | None = None) -> Picture:
        start = self._start(state)
        edited = self._edited(state, start)
        return pixels(self._decode(start, edited.rows, edited.styles, stop_at=stop_at)[0])

    def _decode(
        self,
        start: _Start,
        rows: Float[Tensor, "n l d"],
        styles: Float[Tensor, "#n s"] | None = None,
        *,
        stop_at: int | None = None,
    ) -> Float[Tensor, "n 3 side side"]:
        """Return images of edited codes in [-1, 1], with what F adds; a preview may end below F's layer."""
        offset = start.offset
        if offset is not None and stop_at is not None and stop_at <= offset.shape[-1]:
            offset = None
        options = {"style_offsets": styles, "feature_offset": offset, "stop_at": stop_at}
        return self.generator.synthesis(rows, **options)

    def _edited(self, state: State, start: _Start) -> _Codes:
        """The codes after mixing, truncation and edits, in this order."""
        mean, psi = self.generator.w_avg, state.truncation
        rows = self.generator.truncate(self._mixed(state, start.rows), mean, psi)
        w, step = self.generator.truncate(start.w, mean, psi), self._step(state, start)
        return _Codes(w + step.w, rows + step.rows, step.styles)

    def _mixed(self, state: State, rows: Float[Tensor, "1 l d"]) -> Float[Tensor, "1 l d"]:
        if state.mix_seed is None or not state.mix_layers:
            return rows
        if max(state.mix_layers) >= self.rows:
            raise ExplorerError(f"mix_layers: this world's W+ has rows 0 to {self.rows - 1}")
        rows, other = rows.clone(), self._sources.sampled(state.mix_seed)
        rows[:, list(state.mix_layers)] = other.w[:, None]
        return rows

    def _unit_step(self, direction: Direction) -> _Codes:
        """What strength 1 adds: tried on a code of zeros, for it adds the same everywhere."""
        zero = self._still()
        moved = apply_all(self.generator, Inversion(zero.w, zero.rows), [(direction, 1.0)])
        return _Codes(moved.w, moved.w_plus, zero.styles if moved.styles is None else moved.styles)

    def _still(self) -> _Codes:
        """The step that changes nothing."""
        w = torch.zeros(1, self.generator.style_dim, device=self.device)
        styles = torch.zeros(1, sum(self.generator.style_sizes), device=self.device)
        return _Codes(w, broadcast_w(w, self.rows), styles)

    def _step(self, state: State, start: _Start) -> _Codes:
        """What all edits together add."""
        w, rows, styles = self._still()
        for key, strength in state.edits.items():
            unit = self._steps[self._control(key).key]
            w, rows, styles = (
                w + strength * unit.w,
                rows + strength * unit.rows,
                styles + strength * unit.styles,
            )
        if not state.lock_identity or not state.edits:
            return _Codes(w, rows, styles)
        return self._locked(start, _Codes(w, rows, styles))

    def _control(self, key: str) -> Control:
        if key not in self.controls:
            raise ExplorerError(f"{key}: the world {self.world.name} has no such control.")
        return self.controls[key]

    def _locked(self, start: _Start, step: _Codes) -> _Codes:
        """The step without what changes the identity; in StyleSpace measured in spreads of the channels."""
        w, rows, styles = step
        if rows.any():
            basis = start.facts.get("w basis", lambda: self._basis(start, styled=False))
            w, rows = off(basis, w), off(basis, rows)
        if styles.any():
            basis = start.facts.get("s basis", lambda: self._basis(start, styled=True))
            styles = off(basis, styles / self._spread) * self._spread
        return _Codes(w, rows, styles)

    @torch.inference_mode(False)
    def _basis(self, start: _Start, *, styled: bool) -> Float[Tensor, "k d"]:
        """Found once for each code; the judge too is loaded here, where gradients may flow."""
        try:
            embed = self._embed.get("train", lambda: self.world.identity("train", self.device))
        except WorldError as error:
            raise ExplorerError(f"The identity cannot be locked: {error}") from error

        def stepped(steps: Tensor) -> Tensor:
            if not styled:
                return self._decode(start, start.rows + steps[:, None])
            return self._decode(start, start.rows.expand(len(steps), -1, -1), steps * self._spread)

        still = self._still()
        return identity_basis(embed, stepped, still.styles if styled else still.w)

    def _strip_strengths(self, state: State) -> tuple[float, ...]:
        if state.strip is None:
            return ()
        self._control(state.strip)
        return tuple(np.linspace(-state.strip_range, state.strip_range, STRIP).tolist())

    def _start(self, state: State) -> _Start:
        if state.world != self.world.name:
            raise ExplorerError(f"This studio shows the world {self.world.name}, not {state.world}.")
        key = (*self._sources.key(state), state.space)
        return self._starts.get(key, lambda: self._begin(state))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _begin(self, state: State) -> _Start:
        codes = self._sources.codes(state)
        if state.space == "w":
            return _Start(codes.w, broadcast_w(codes.w, self.rows), None)
        offset = feature_offset(self.generator, codes) if state.space == "f" else None
        return _Start(codes.w, codes.w_plus, offset)


def _difference(a: Picture, b: Picture) -> Picture:
    """How far two pictures are apart, pixel by pixel, brightened."""
    apart = np.abs(a.astype(np.int16) - b.astype(np.int16)) * BRIGHTEN
    return apart.clip(0, 255).astype(np.uint8)
