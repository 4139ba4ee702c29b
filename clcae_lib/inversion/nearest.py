"""The two inverters that need no search: the mean face, and the nearest code in the space of alignment.

A code and its picture are embedded close together by the contrastive encoders of arXiv 2211.11448, section
3.1. So among many codes drawn at random, the one whose embedding is nearest to a picture's is an answer, and
what an encoder adds to it is what is left to learn.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import cache, paths
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.weights import checkpoints, load_alignment
from clcae_lib.worlds import World

BLOCK = 1000
"""Codes that are drawn from one seed and embedded at once."""


class MeanFaceInverter:
    """The mean code, whatever the picture: what an inverter must beat to have looked at it.

    Args:
        generator: what decodes the code.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def invert(self, images: Float[Tensor, "batch 3 side side"]) -> Inversion:
        """The mean code, once for each image."""
        return Inversion.from_w(self.generator.w_avg.expand(len(images), -1).clone(), self.generator)


class NearestCodeInverter:
    """The code in W, among many drawn at random, whose embedding is nearest to the picture's.

    The embeddings of the codes are made once for a generator and an alignment and kept in the cache; the
    codes are drawn anew from their seeds where they are needed.

    Args:
        generator: gives the codes.
        image_encoder: images to unit vectors.
        latent_encoder: codes of W to unit vectors of the same space.
        bank: how many codes.
        seed: of the codes.
        view: what the image encoder is shown of a picture; the picture itself if None.

    Raises:
        ValueError: there is no code.
    """

    def __init__(
        self,
        generator: Generator,
        image_encoder: nn.Module,
        latent_encoder: nn.Module,
        *,
        bank: int = 100_000,
        seed: int = 0,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if bank < 1:
            raise ValueError(f"bank={bank}: the nearest code needs at least one to choose from")
        self.generator, self.bank, self.seed = generator, bank, seed
        self.image_encoder, self.latent_encoder = image_encoder.eval(), latent_encoder.eval()
        self.view = view or (lambda images: images)

    @classmethod
    def load(
        cls,
        world: World,
        generator: Generator | None = None,
        *,
        path: Path | str | nn.Module | None = None,
        bank: int = 100_000,
        seed: int = 0,
    ) -> "NearestCodeInverter":
        """The inverter of a world.

        Args:
            world: whose alignment it takes.
            generator: the world's own, if it is loaded already.
            path: another alignment's file.
            bank: how many codes.
            seed: of the codes.

        Raises:
            WorldError: the world has no alignment; the message has the command that trains it.
            ValueError: the file holds something else.
        """
        if isinstance(path, nn.Module):
            raise ValueError("weights: nearest_code takes the file of an alignment, which is two networks")
        path = path or world.require("alignment", command=f"clcae train alignment --world {world.name}")
        generator = generator if generator is not None else world.generator("cpu")
        images, codes, _ = load_alignment(path, device=generator.w_avg.device)
        return cls(generator, images, codes, bank=bank, seed=seed)

    @torch.no_grad()
    def invert(self, images: Float[Tensor, "batch 3 side side"], *, batch_size: int = 64) -> Inversion:
        """The nearest codes of images in [-1, 1]; `batch_size` of them are embedded at once."""
        device, bank = self.generator.w_avg.device, self.embeddings()
        parts = [
            (self.image_encoder(self.view(batch.to(device))) @ bank.T).argmax(dim=1)
            for batch in images.split(batch_size)
        ]
        return Inversion.from_w(self.codes(torch.cat(parts)), self.generator)

    def codes(self, indices: Tensor) -> Float[Tensor, "batch dim"]:
        """The codes of the bank at these places."""
        blocks = {b: self._block(b) for b in torch.unique(indices // BLOCK).tolist()}
        return torch.stack([blocks[i // BLOCK][i % BLOCK] for i in indices.tolist()])

    def embeddings(self) -> Float[Tensor, "bank embedding"]:
        """Unit vectors of all codes of the bank, from the cache, or made and put there."""
        path = self.bank_file

        def make() -> None:
            found = {"embeddings": self._embed()}
            checkpoints.save_weights(path, found, metadata={"kind": "bank"}, half=False)

        found = checkpoints.load_weights(cache.made(path, make), kind="bank")[0]["embeddings"]
        return found.to(self.generator.w_avg.device)

    @property
    def bank_file(self) -> Path:
        """Where the cache keeps the embeddings: named by codes, networks and the program that makes them."""
        networks = [self.generator.style, self.latent_encoder]
        modules = [__name__, type(self.generator).__module__, type(self.latent_encoder).__module__]
        key = cache.key(self.bank, self.seed, [_digest(network) for network in networks], modules=modules)
        return paths.cache_dir() / "banks" / f"{key}.safetensors"

    @torch.no_grad()
    def _embed(self) -> Tensor:
        blocks = -(-self.bank // BLOCK)
        return torch.cat([self.latent_encoder(self._block(b)) for b in range(blocks)])[: self.bank]

    def _block(self, index: int) -> Float[Tensor, "block dim"]:
        """The codes of one block, always the same."""
        source = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        with torch.no_grad():
            return self.generator.sample_w(BLOCK, generator=source)


def _digest(network: nn.Module) -> str:
    """Return a digest of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
