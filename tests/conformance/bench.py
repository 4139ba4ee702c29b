"""Networks filled as for the golden numbers, and their inputs; each is made once, at its first use."""

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from clcae_lib.models import (
    ArcFace,
    Codes,
    Generator,
    PublishedImageEncoder,
    PublishedLatentEncoder,
    make_kernel,
)
from clcae_lib.weights import checkpoints
from clcae_lib.worlds.perceptual import empty_lpips
from tests.conformance import fill, golden
from tests.conformance.official import PublishedInversion, build_inversion

HEIGHTS = {"faces": 256, "cars": 192}


class Bench:
    """The official networks at one size.

    Args:
        domain: `faces` or `cars`.
        size: side of the generator's images.
        batch: number of images of the inversion's numbers.
    """

    def __init__(self, domain: str = "faces", size: int = 256, *, batch: int = 2) -> None:
        self.domain, self.size, self.batch = domain, size, batch
        self.results: dict[str, Any] = {}

    @cached_property
    def inversion(self) -> PublishedInversion:
        network = filled(lambda: build_inversion(self.size, domain=self.domain))
        network.encoder.w_avg.copy_(fill.latent_avg())
        network.encoder.average = self.average
        return network

    @cached_property
    def generator(self) -> Generator:
        return filled(lambda: Generator(self.size))

    @cached_property
    def image_encoder(self) -> PublishedImageEncoder:
        network = filled(PublishedImageEncoder)
        network.average = self.average
        return network

    @cached_property
    def latent_encoder(self) -> PublishedLatentEncoder:
        network = filled(PublishedLatentEncoder)
        network.w_avg.copy_(fill.latent_avg())
        return network

    @cached_property
    def arcface(self) -> ArcFace:
        return filled(ArcFace)

    @cached_property
    def lpips(self) -> nn.Module:
        shapes = {name: tuple(entry[0]) for name, entry in golden.manifest("lpips_alex").items()}
        statistics = {"net.mean", "net.std"}
        tensors = filled_tensors({k: v for k, v in shapes.items() if k not in statistics})
        tensors["net.mean"] = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        tensors["net.std"] = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
        return lpips_from_published(tensors)

    @property
    def images(self) -> Tensor:
        return fill.image("x", HEIGHTS[self.domain], 256, self.batch)

    @property
    def average(self) -> Tensor:
        return fill.image("x_avg", HEIGHTS[self.domain], 256, 1)

    def codes(self, *, edit: bool) -> tuple[Codes, Tensor]:
        """Return the codes, and the generator's own activation 5."""

        def make() -> tuple[Codes, Tensor]:
            step = 3 * fill.direction("edit", (1, 512)) if edit else None
            codes = self.inversion.encoder(self.images, edit=step)
            return codes, self.inversion.decoder.activation(codes.w_plus)

        return self.kept(f"codes, edit={edit}", make)

    def image(self, space: str, *, blend: float = 1.0, edit: bool, resize: bool) -> Tensor:
        """Return an image of the codes."""

        def make() -> Tensor:
            before = self.codes(edit=False)[0].w_plus if edit else None
            options = {"before": before, "blend": blend, "side": 256 if resize else None}
            return self.inversion.decode(self.codes(edit=edit)[0], space, **options)

        return self.kept(f"{space}, {blend=}, {edit=}, {resize=}", make)

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returned at the first call with this key."""
        if key not in self.results:
            self.results[key] = make()
        return self.results[key]


def filled(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network with filled weights, frozen, in evaluation mode."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    return checkpoints.build(make, filled_tensors(shapes), source="the filler")


def filled_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return filled weights by name; filters and counters, which are not filled, as networks have them."""
    kept = {"kernel": make_kernel((1, 3, 3, 1), gain=4.0), "num_batches_tracked": torch.tensor(0)}
    tensors = {}
    for name, shape in shapes.items():
        values = fill.weight(name, shape)
        own = kept.get(name.rpartition(".")[2])
        tensors[name] = own.clone() if values is None else torch.from_numpy(values)
    return tensors


@cache
def shared(domain: str = "faces", size: int = 256, batch: int = 2) -> Bench:
    """Return one bench for all tests of a process."""
    return Bench(domain, size, batch=batch)


def lpips_from_published(tensors: dict[str, Tensor]) -> nn.Module:
    """Return LPIPS from weights under the official code's names: `net.layers.N.*`, `lin.I.1.weight`."""
    names = {"net.mean": "scaling_layer.shift", "net.std": "scaling_layer.scale"}
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    for name in tensors:
        parts = name.split(".")
        if parts[:2] == ["net", "layers"] and parts[2] in slices:
            names[name] = f"net.slice{slices[parts[2]]}.{parts[2]}.{parts[3]}"
        elif parts[0] == "lin":
            names[name] = f"lin{parts[1]}.model.1.weight"
    model = empty_lpips()
    # The package holds its heads twice, as attributes and in a list.
    renamed = {names.get(name, name): value for name, value in tensors.items()}
    heads = {name: value for name, value in renamed.items() if name.startswith("lin")}
    renamed |= {f"lins.{name[3]}{name[4:]}": value for name, value in heads.items()}
    checkpoints.load_into(model, renamed, source="the published LPIPS weights")
    return model.requires_grad_(False).eval()
