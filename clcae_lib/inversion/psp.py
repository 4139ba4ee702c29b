"""pSp: a feature pyramid, and one style block per layer of W+ (arXiv 2008.00951, sections 3.1 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.inversion.inverter import EncoderInverter
from clcae_lib.models import Generator, PublishedHfgi, PublishedPeer
from clcae_lib.models.backbone import Codes, Pyramid, StyleBlock, make_backbone, to_encoder_side
from clcae_lib.models.config import configured
from clcae_lib.models.foundation import level_of
from clcae_lib.spaces import num_layers
from clcae_lib.weights import WeightsError, checkpoints, read_as
from clcae_lib.weights.read import naming
from clcae_lib.worlds import World, get_world


class PspEncoder(nn.Module):
    """Map images to W+: each layer has its own style block on the pyramid; the mean code is added.

    Args:
        resolution: side of the generator's images; the encoder sees at most 256 pixels.
        pictures: number of images joined in the channels: 1, or 2 as in ReStyle's encoders.
        pyramid: whether layers read three levels; if not, all read the coarsest map, as in ReStyle's encoder.
    """

    w_avg: Tensor

    @configured
    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        body: str = "small",
        widths: Sequence[int] | None = None,
        pictures: int = 1,
        pyramid: bool = True,
    ) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(style_dim))
        self.n_latent = num_layers(resolution)
        self.body = make_backbone(body, widths=widths)
        self.pyramid = Pyramid(self.body.channels, style_dim)
        side, hidden = min(resolution, 256) // 16, 3 * style_dim // 8
        self.levels = [level_of(k) if pyramid else 0 for k in range(self.n_latent)]
        self.to_layers = nn.ModuleList(
            StyleBlock(style_dim, style_dim, side=side << level, hidden=hidden) for level in self.levels
        )
        if pictures > 1:
            self._widen(pictures)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Codes:
        """Return the W+ of images in [-1, 1]; `w`, which pSp does not have, is the mean over layers."""
        w_plus = self.w_avg + self.offsets(images)
        return Codes(w_plus.mean(dim=1), w_plus, None)

    def offsets(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n l d"]:
        """Return the output of each layer's block."""
        levels = self.pyramid(self.body(to_encoder_side(images)))
        blocks = zip(self.levels, self.to_layers, strict=True)
        return torch.stack([block(levels[level]) for level, block in blocks], dim=1)

    def start_from(self, body: dict[str, Tensor]) -> None:
        """Load a pretrained backbone; the first layer's weights for a second image start at zero."""
        own = dict(body)
        if self.config["pictures"] > 1:
            name, first = first_convolution(self.body)
            wide = torch.zeros_like(first.weight)
            wide[:, :3] = body[f"{name}.weight"]
            own[f"{name}.weight"] = wide
        self.body.load_state_dict(own)

    @torch.no_grad()
    def attach(self, generator: nn.Module) -> None:
        """Set the mean code to that of the generator."""
        self.w_avg.copy_(generator.w_avg)

    def _widen(self, images: int) -> None:
        """Extend the backbone's first convolution to the channels of several images."""
        name, first = first_convolution(self.body)
        bias = first.bias is not None
        wide = nn.Conv2d(3 * images, first.out_channels, 3, first.stride, first.padding, bias=bias)
        self.body.set_submodule(name, wide)


def first_convolution(body: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name of the first convolution, and the convolution."""
    return next((name, part) for name, part in body.named_modules() if isinstance(part, nn.Conv2d))


class PeerInverter(EncoderInverter):
    """Base of the trained peers, the methods that CLCAE is compared with."""

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {}
    """Network of each method of this class, by the method's name."""

    @classmethod
    def load(
        cls,
        world: str | World,
        *,
        device: torch.device | str = "auto",
        generator: Generator | None = None,
        path: Path | str | None = None,
        method: str | None = None,
    ) -> PeerInverter:
        """Return the inverter of a weights file.

        Args:
            path: weights file, trained here or an official checkpoint; by default
                `peer_<method>.safetensors` of the world.
            method: one of the class's methods; by default the first, or any that the given file has.

        Raises:
            WorldError: the world has no such weights; the message has the command that trains them.
            ValueError: the weights do not fit.
        """
        device, world = resolve_device(device), get_world(world)
        methods = [method] if method else list(cls.encoders)
        if path is None:
            command = f"clcae train peer --world {world.name} --set method={methods[0]}"
            path = world.require(f"peer_{methods[0]}", command=command)
        tensors, metadata = read_as(path, "peer")
        found, published = metadata.get("method"), metadata.get("preset") == "published"
        inner = published and found == "hfgi" and "e4e" in methods  # an HFGI file contains an e4e
        if found not in methods and not inner:
            held = f"{path} holds {str(found)[:80]!r}"
            raise WeightsError(f"{held}, not {' or '.join(methods)}; give another file")
        generator = generator if generator is not None else world.generator(device)
        kind = cls.encoders[found] if not published else PublishedHfgi if found == "hfgi" else PublishedPeer
        encoder = checkpoints.build(lambda: kind(**metadata["config"]), tensors, source=path)
        encoder = encoder.base if inner else encoder
        if published:
            with naming(path):
                _require_same(generator, metadata["generator_begins"], path)
            return cls(encoder.to(device), generator, view=world.published_view)
        encoder.attach(generator)
        return cls(encoder.to(device), generator)


def _require_same(generator: Generator, begins: Sequence[float], path: Path | str) -> None:
    """Refuse a generator that is not the official encoder's, by the first numbers of its constant."""
    own = generator.input["input"].flatten()[: len(begins)].cpu()
    if not torch.allclose(own, torch.tensor(begins), rtol=0.01, atol=0.01):
        raise WeightsError(
            f"{path} was trained with another generator than the world's; make a world of it: "
            "`clcae world add NAME --images DIR --generator FILE` takes the same file"
        )


class PspInverter(PeerInverter):
    """pSp: one pass of its encoder."""

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {"psp": PspEncoder}
