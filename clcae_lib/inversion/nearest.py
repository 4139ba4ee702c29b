"""Two trivial inverters: the mean face, and the nearest code in the embedding of alignment.

The contrastive encoders of arXiv 2211.11448, section 3.1, embed a code close to its image. A baseline for
encoders is the one of many random codes whose embedding is nearest to that of the image.
"""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import cache, paths
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.weights import checkpoints, load_alignment
from clcae_lib.worlds import World

BLOCK = 1000
"""Number of codes that are drawn from one seed and embedded together."""


class MeanFaceInverter:
    """Returns the mean code for every image; the baseline of every inverter."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def invert(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        """Return the mean code, once for each image."""
        return Inversion.from_w(self.generator.w_avg.expand(len(images), -1).clone(), self.generator)


class NearestCodeInverter:
    """Returns the one of many random codes in W whose embedding is nearest to the image's.

    The embeddings of the codes are cached for each generator and alignment; the codes are regenerated from
    their seeds when needed.

    Args:
        image_encoder: encoder of images to unit vectors.
        latent_encoder: encoder of codes of W to unit vectors of the same space.
        bank: number of codes, 1 or more.

    Raises:
        ValueError: `bank` is less than 1.
    """

    def __init__(
        self,
        generator: Generator,
        image_encoder: nn.Module,
        latent_encoder: nn.Module,
        *,
        bank: int = 100_000,
        seed: int = 0,
    ) -> None:
        if bank < 1:
            raise ValueError(f"bank={bank}: the nearest code needs at least one to choose from")
        self.generator, self.bank, self.seed = generator, bank, seed
        self.image_encoder, self.latent_encoder = image_encoder.eval(), latent_encoder.eval()

    @classmethod
    def load(
        cls,
        world: World,
        generator: Generator,
        *,
        path: Path | str | nn.Module | None = None,
        bank: int = 100_000,
        seed: int = 0,
    ) -> "NearestCodeInverter":
        """Return the inverter of a world.

        Args:
            path: file of another alignment.

        Raises:
            WorldError: the world has no alignment; the message has the command that trains it.
            ValueError: the file is of another kind.
        """
        if isinstance(path, nn.Module):
            raise ValueError("weights: give nearest_code the file of an alignment, not a network")
        path = path or world.require("alignment", command=f"clcae train alignment --world {world.name}")
        images, codes, _ = load_alignment(path, device=generator.w_avg.device)
        return cls(generator, images, codes, bank=bank, seed=seed)

    @torch.no_grad()
    def invert(self, images: Float[Tensor, "n 3 h w"], *, batch_size: int = 64) -> Inversion:
        """Return the nearest codes of images in [-1, 1], which are embedded in batches."""
        device, bank = self.generator.w_avg.device, self.embeddings()
        parts = [
            (self.image_encoder(batch.to(device)) @ bank.T).argmax(dim=1)
            for batch in images.split(batch_size)
        ]
        return Inversion.from_w(self.codes(torch.cat(parts)), self.generator)

    def codes(self, indices: Tensor) -> Float[Tensor, "n d"]:
        """Return the codes of the bank with these indices, regenerated block by block from their seeds."""
        blocks = {b: self._block(b) for b in torch.unique(indices // BLOCK).tolist()}
        return torch.stack([blocks[i // BLOCK][i % BLOCK] for i in indices.tolist()])

    def embeddings(self) -> Float[Tensor, "n e"]:
        """Return unit vectors of all codes of the bank, from the cache if it has them."""
        path = self.bank_file

        def make() -> None:
            found = {"embeddings": self._embed()}
            checkpoints.save_weights(path, found, metadata={"kind": "bank"}, half=False)

        found = checkpoints.load_weights(cache.made(path, make), kind="bank")[0]["embeddings"]
        return found.to(self.generator.w_avg.device)

    @property
    def bank_file(self) -> Path:
        """The cache file of the embeddings; codes, networks and program determine its name."""
        networks = (self.generator.style, self.latent_encoder)
        states = [{k: v.cpu() for k, v in network.state_dict().items()} for network in networks]
        digests = [hashlib.sha256(safetensors.torch.save(state)).hexdigest() for state in states]
        modules = [__name__, type(self.generator).__module__, type(self.latent_encoder).__module__]
        key = cache.key(self.bank, self.seed, digests, modules=modules)
        return paths.cache_dir() / "banks" / f"{key}.safetensors"

    @torch.no_grad()
    def _embed(self) -> Tensor:
        blocks = -(-self.bank // BLOCK)
        return torch.cat([self.latent_encoder(self._block(b)) for b in range(blocks)])[: self.bank]

    def _block(self, index: int) -> Float[Tensor, "n d"]:
        """Return the codes of one block."""
        source = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        with torch.no_grad():
            return self.generator.sample_w(BLOCK, generator=source)
