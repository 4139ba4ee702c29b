"""The part of the explorer without widgets: it computes the images and measures of a state.

It inverts (arXiv 2211.11448, section 3), edits W+ and adapts F (section 3.4), and measures what an edit
changed in addition to its target (section 4.3).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import Direction, apply_all, channel_spread, sample_codes
from clcae_lib.editing.named import SAMPLES
from clcae_lib.evaluation import Judges
from clcae_lib.explorer.controls import find_controls
from clcae_lib.explorer.identity import identity_basis, project_off
from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.explorer.uploads import from_text
from clcae_lib.images import from_array, to_array
from clcae_lib.inversion import ClcaeInverter, Inversion
from clcae_lib.spaces import broadcast_w
from clcae_lib.weights import ENCODERS
from clcae_lib.worlds import World, WorldError, get_world

KEPT = 24
"""Number of inversions that are kept; the least recently used is deleted first."""
_FIRST = 5
"""Index of the gallery's image that is shown first: an ordinary face in the embedded world."""
GALLERY = 1000
"""Largest number of images in a gallery."""
STRIP = 5
"""Number of images of a strip."""
BRIGHTEN = 3
"""Factor by which a difference is brightened."""

Pixels = UInt8[np.ndarray, "h w 3"]
Step = tuple[Tensor, Tensor, Tensor]
"""What edits add to `w`, `w_plus` and the styles."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Frame:
    """The images and measures of a state.

    Attributes:
        before: the source's image, without truncation, mixing and edits.
        after: the state's image.
        difference: their absolute difference, brightened threefold.
        strip: images over the range of the control `strip`; empty for none.
        strip_strengths: strength of that control in each of them.
        readout: one row per factor; columns before, after and change, in the factor's standard deviations, as
            the attribute regressor in the role "measure" reads them, and whether the factor is reliable (see
            `Judges.unreliable`); None if the world has no attribute regressor.
        identity: identity similarity, -1 to 1, of before and after; None without an identity network.
    """

    before: Pixels
    after: Pixels
    difference: Pixels
    strip: tuple[Pixels, ...] = ()
    strip_strengths: tuple[float, ...] = ()
    readout: pd.DataFrame | None = None
    identity: float | None = None


class _Codes(NamedTuple):
    """Codes in the space that is decoded, and what F adds to the generator's activation of the source.

    F changes with the codes: `F_edit = F + G5(w_plus edited) - G5(w_plus)`. The pass that draws the edited
    image computes `G5(w_plus edited)` in any case, so only the difference `F - G5(w_plus)` is stored.
    """

    w: Float[Tensor, "1 d"]
    w_plus: Float[Tensor, "n l d"]
    styles: Float[Tensor, "n s"] | None = None
    offset: Float[Tensor, "1 c h w"] | None = None


class Studio:
    """Renders the states of one world; several threads may call it at the same time.

    `Studio.open` makes one. A request for something that the world does not have raises an ExplorerError.

    Args:
        world: the world, or its name; it must have a generator.
        samples: number of codes that directions are found from, if they must be found first.

    Attributes:
        controls: the sliders by key, see `find_controls`.
        left_out: why files of directions give no slider, a sentence each.
        methods: presets of encoders that the world has weights of.
        gallery_size: number of images in the gallery.
        rows: L, rows of W+.
        side: height and width of the images, in pixels.
    """

    def __init__(self, world: str | World, *, device: torch.device | str, samples: int) -> None:
        self.world, self.device, self.left_out = get_world(world), resolve_device(device), list[str]()
        self.generator = generator = self.world.generator(self.device)
        options = {"samples": samples, "device": self.device, "report": self.left_out.append}
        self.controls = MappingProxyType(find_controls(self.world, generator, **options))
        self.methods = tuple(name for name in ENCODERS if self.world.inversion(name) is not None)
        self.rows, self.side = generator.n_latent, generator.size
        splits = self.world.splits
        split = "test" if "test" in splits else next(iter(splits), None)
        self._images = None if split is None else _or_none(partial(self.world.images, split))
        self.gallery_size = 0 if self._images is None else min(GALLERY, len(self._images))
        self._judges = Judges(self.world, self.device)
        self._spread = channel_spread(generator).clamp(min=1e-6)
        w = torch.zeros(1, generator.style_dim, device=self.device)
        styles = torch.zeros(1, sum(generator.style_sizes), device=self.device)
        self._no_step: Step = (w, broadcast_w(w, self.rows), styles)
        self._steps = {key: self._unit_step(control.direction) for key, control in self.controls.items()}
        load = partial(ClcaeInverter.load, self.world, device=self.device, generator=generator)
        self._inverter = lru_cache(len(ENCODERS))(load)
        self._inverted = lru_cache(KEPT)(self._invert)
        self._start = lru_cache(KEPT)(self._find_start)
        self._before = lru_cache(KEPT)(self._read_before)
        self._basis = lru_cache(2 * KEPT)(self._find_basis)

    @classmethod
    def open(
        cls,
        world: str | World = "portraits",
        *,
        device: torch.device | str = "auto",
        samples: int = SAMPLES,
    ) -> "Studio":
        """Return the studio of a world, in a second; a minute if directions must be found first."""
        return cls(world, device=device, samples=samples)

    @property
    def first(self) -> State:
        """The first state: an inverted image if the world has an encoder and images, else a sample."""
        method = (*self.methods, State().method)[0]
        if not self.methods or not self.gallery_size:
            return State(world=self.world.name, method=method)
        index = min(_FIRST, self.gallery_size - 1)
        return State(world=self.world.name, source="gallery", index=index, method=method)

    def check(self, state: State) -> None:
        """Check that a state is of this world and that its controls and rows of W+ exist."""
        if state.world != self.world.name:
            raise ExplorerError(
                f"This state is of the world {state.world}, not {self.world.name}: choose that world first."
            )
        unknown = sorted({*state.edits, *([state.strip] if state.strip else [])} - self.controls.keys())
        if unknown:
            raise ExplorerError(f"{unknown[0]}: the world {self.world.name} has no such control.")
        if state.mix_layers and max(state.mix_layers) >= self.rows:
            raise ExplorerError(f"mix_layers: this world's W+ has rows 0 to {self.rows - 1}.")

    @torch.inference_mode()
    def image(self, state: State, *, side: int | None = None) -> Pixels:
        """Return only the state's image: one pass of the generator, after the source was inverted once.

        With `side`, a power of two from 4, the image is a preview of that resolution without the upper
        layers.
        """
        if side is not None and side not in self.generator.channels:
            known = ", ".join(map(str, self.generator.channels))
            raise ExplorerError(f"side={side}: this generator draws at {known} pixels.")
        return to_array(self._decode(self._edited(state), stop_at=side)[0])

    @torch.no_grad()
    def frame(self, state: State) -> Frame:
        """Return all images and measures of a state."""
        strengths = ()
        if state.strip is not None:
            strengths = tuple(np.linspace(-state.strip_range, state.strip_range, STRIP).tolist())
        edited = [self._edited(state), *(self._edited(state.with_edit(state.strip, s)) for s in strengths)]
        w_plus, styles = (torch.cat([getattr(c, part) for c in edited]) for part in ("w_plus", "styles"))
        images = self._decode(edited[0]._replace(w_plus=w_plus, styles=styles))
        original, seen = self._before(_source(state))
        before, (after, *strip) = to_array(original[0]), map(to_array, images)
        difference = (np.abs(before.astype(np.int16) - after) * BRIGHTEN).clip(0, 255).astype(np.uint8)
        measured = self._compare(seen, self._read(images[:1]))
        return Frame(before, after, difference, tuple(strip), strengths, *measured)

    @torch.no_grad()
    def inversion(self, state: State) -> Inversion:
        """Return the codes after mixing, truncation and edits.

        They decode to the image: from "f" if there is a feature, else from "w_plus". In the space "w", the
        rows of `w_plus` start as copies of `w`.
        """
        codes = self._edited(state)
        styles = codes.styles if codes.styles.any() else None
        if codes.offset is None:
            return Inversion(codes.w, codes.w_plus, None, styles)
        side = codes.offset.shape[-1]
        own = self.generator.activation(codes.w_plus, side=side, style_offsets=styles)
        return Inversion(codes.w, codes.w_plus, own + codes.offset, styles)

    def thumbnails(self, indices: Iterable[int]) -> list[Pixels]:
        """Return images of the gallery."""
        return [to_array(image) for image in self._gallery(list(indices))]

    def _gallery(self, indices: list[int]) -> Float[Tensor, "n 3 h w"]:
        if self._images is None:
            raise ExplorerError(f"The world {self.world.name} has no gallery: draw by seed, or upload.")
        if not all(0 <= index < self.gallery_size for index in indices):
            raise ExplorerError(f"index: the gallery has images 0 to {self.gallery_size - 1}.")
        return self._images.images(indices)

    def _invert(self, source: State) -> Inversion:
        if source.source == "seed":
            return Inversion.from_w(sample_codes(self.generator, 1, seed=source.seed), self.generator)
        if source.method not in self.methods:
            name, known = self.world.name, ", ".join(self.methods)
            train = f"draw by seed, or train one: `clcae train all --world {name} --install`"
            remedy = f"choose {known}" if known else train
            raise ExplorerError(f"The world {name} has no encoder {source.method}: {remedy}.")
        if source.source == "gallery":
            image = self._gallery([source.index])
        elif source.upload is None:
            raise ExplorerError("Nothing is uploaded yet: choose an image.")
        else:
            image = from_array(from_text(source.upload, side=self.side))[None]
        return self._inverter(source.method).invert(image)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _find_start(self, source: State) -> _Codes:
        """Return the source's code in the space that is decoded, before any change."""
        codes = self._inverted(replace(source, space="f"))
        if source.space == "w":
            return _Codes(codes.w, broadcast_w(codes.w, self.rows))
        if source.space == "w_plus" or codes.feature is None:
            return _Codes(codes.w, codes.w_plus)
        side = codes.feature.shape[-1]
        own = self.generator.activation(codes.w_plus, side=side)
        return _Codes(codes.w, codes.w_plus, offset=codes.feature - own)

    def _edited(self, state: State) -> _Codes:
        """Return the codes after mixing, truncation and edits, in this order."""
        self.check(state)
        start = self._start(_source(state))
        mixed = start.w_plus
        if state.mix_seed is not None and state.mix_layers:
            mixed = mixed.clone()
            mixed[:, list(state.mix_layers)] = sample_codes(self.generator, 1, seed=state.mix_seed)[:, None]
        step_w, step_w_plus, styles = self._step(state)
        net, psi = self.generator, state.truncation
        w, w_plus = (net.truncate(codes, net.w_avg, psi) for codes in (start.w, mixed))
        return _Codes(w + step_w, w_plus + step_w_plus, styles, start.offset)

    def _unit_step(self, direction: Direction) -> Step:
        """Return what strength 1 adds to a code; it is the same for every code, so zeros are used."""
        w, w_plus, styles = self._no_step
        moved = apply_all(self.generator, Inversion(w, w_plus), [(direction, 1.0)])
        return moved.w, moved.w_plus, styles if moved.styles is None else moved.styles

    def _step(self, state: State) -> Step:
        """Return the sum of all edits; styles are locked in units of the channels' spread."""
        step = self._no_step
        for key, strength in state.edits.items():
            step = tuple(a + strength * b for a, b in zip(step, self._steps[key], strict=True))
        w, w_plus, styles = step
        if state.lock_identity and w_plus.any():
            basis = self._basis(_source(state), in_styles=False)
            w, w_plus = project_off(basis, w), project_off(basis, w_plus)
        if state.lock_identity and styles.any():
            basis = self._basis(_source(state), in_styles=True)
            styles = project_off(basis, styles / self._spread) * self._spread
        return w, w_plus, styles

    @torch.inference_mode(False)
    def _find_basis(self, source: State, *, in_styles: bool) -> Float[Tensor, "k d"]:
        """Return the steps that change the identity most; gradients do not exist in inference mode."""
        start, (no_w, _, no_styles) = self._start(source), self._no_step

        def in_w(steps: Tensor) -> Tensor:
            return self._decode(start._replace(w_plus=start.w_plus + steps[:, None]))

        def in_s(steps: Tensor) -> Tensor:
            w_plus = start.w_plus.expand(len(steps), -1, -1)
            return self._decode(start._replace(w_plus=w_plus, styles=steps * self._spread))

        decode, zero = (in_s, no_styles) if in_styles else (in_w, no_w)
        return identity_basis(self._loss_identity, decode, zero)

    @cached_property
    def _loss_identity(self) -> nn.Module:
        try:
            return self.world.identity("train", self.device)
        except WorldError as error:
            raise ExplorerError(f"The identity cannot be locked: {error}") from error

    def _decode(self, codes: _Codes, *, stop_at: int | None = None) -> Float[Tensor, "n 3 h w"]:
        """Return images in [-1, 1], with F if the layers up to `stop_at` include F's."""
        offset = codes.offset
        if offset is not None and stop_at is not None and stop_at <= offset.shape[-1]:
            offset = None
        options = {"style_offsets": codes.styles, "feature_offset": offset, "stop_at": stop_at}
        return self.generator.synthesis(codes.w_plus, **options)

    def _read_before(self, source: State) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        image = self._decode(self._start(source))
        return image, self._read(image)

    def _read(self, image: Float[Tensor, "1 3 h w"]) -> tuple[Tensor | None, Tensor | None]:
        """Return factors in standard deviations and the identity embedding; None if a network is missing."""
        factors = _or_none(lambda: self._judges.factors(image)[0])
        return factors, _or_none(lambda: self._judges.embed(image)[0])

    def _compare(
        self, before: tuple[Tensor | None, Tensor | None], after: tuple[Tensor | None, Tensor | None]
    ) -> tuple[pd.DataFrame | None, float | None]:
        table = identity = None
        if after[0] is not None:
            columns = {"before": before[0], "after": after[0], "change": after[0] - before[0]}
            values = {name: column.numpy() for name, column in columns.items()}
            table = pd.DataFrame(values, index=pd.Index(self.world.factor_names, name="factor"))
            table["reliable"] = ~table.index.isin(self._judges.unreliable)
        if after[1] is not None:
            identity = float(before[1] @ after[1])
        return table, identity


def _source(state: State) -> State:
    """Return the part of a state that determines the source's code, and the decoded space."""
    parts = {"seed": ("seed",), "gallery": ("index", "method"), "upload": ("upload", "method")}
    kept = ("world", "source", "space", *parts[state.source])
    return State(**{name: getattr(state, name) for name in kept})


def _or_none(find: Callable[[], Found]) -> Found | None:
    try:
        return find()
    except WorldError:
        return None
