"""Invert a folder of photographs and write images, codes and a table of measures.

Photographs are inverted and written one at a time. One that cannot be used is named in the table and skipped;
any other error ends the command, and the files written before stay. A file of codes also stores its measures
and what they depend on. So a second run continues where the first one stopped, and repeats only inversions
whose inputs have changed (protocol of arXiv 2211.11448, section 4.1).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import cache
from clcae_lib.files import write_text
from clcae_lib.images import save_image
from clcae_lib.inversion import Inverter, Tuned
from clcae_lib.metrics import psnr, ssim
from clcae_lib.photos import PhotoError, none_usable, read_folder
from clcae_lib.weights import WeightsError, checkpoints
from clcae_lib.worlds import PhotoWorld, WorldError
from clcae_lib.worlds.perceptual import distance_name

TABLE = "measures.csv"
KIND = "inversion codes"
TUNED = "tuned."
_COLUMNS = ["file", "space", "psnr", "ssim", "perceptual", "perceptual_name", "identity", "error"]
Row = dict[str, Any]


class Album:
    """Inverts the photographs of a folder, one at a time.

    Args:
        world: the world that cuts photographs; its judges measure if they are installed.
        made_by: files of weights that the result depends on.
        spaces: spaces that are decoded to images: `w`, `w_plus`, `f`.
        method: name of the inverter's method.
        published: whether to compare with the view of a photograph that preset `published` has.
    """

    def __init__(
        self,
        world: PhotoWorld,
        inverter: Inverter,
        *,
        made_by: Sequence[Path],
        spaces: Sequence[str] = ("f",),
        method: str = "",
        published: bool = False,
    ) -> None:
        self.shown = world.published_view if published else world.view
        self.world, self.inverter, self.spaces = world, inverter, tuple(spaces)
        self.made_by, self.made_with, self.method = made_by, "", method
        self.judges: dict[str, Any] = {}
        self.missing: list[str] = []
        for name in ("perceptual", "identity"):
            try:
                self.judges[name] = getattr(world, name)("measure", inverter.generator.w_avg.device)
            except WorldError as error:
                self.missing.append(f"{name} is not measured: {error}")

    def invert(self, source: Path, target: Path, *, report: Callable[[str], None] = print) -> list[Row]:
        """Write `NAME.safetensors`, `NAME.SPACE.png` and `measures.csv`; return the table's rows.

        A row compares one image with the crop: `psnr` (dB), `ssim`, `perceptual` (a distance, named by
        `perceptual_name`) and `identity` (a cosine). Or it has `error`: why the photograph was left out. A
        PhotoError is raised if `source` is not a folder, has no file, or is `target`.
        """
        good, refused = read_folder(source, decode=False)
        rows = [{"file": path.name, "error": reason} for path, reason in refused]
        if not good and not refused:
            raise PhotoError(none_usable(source))
        if target.resolve() == source.resolve():
            raise PhotoError(
                f"{target} is the folder of the photographs; name another one for the results, which would "
                "be taken for photographs"
            )
        target.mkdir(parents=True, exist_ok=True)
        judges = [self.world.judge_file(name, "measure") for name in self.judges]
        parts = [str(self.world.cutter), self.method, *self.spaces, *self.judges]
        # Once per run, because it reads the files of weights completely.
        self.made_with = cache.key(*parts, modules=[__name__], files=[*self.made_by, *filter(None, judges)])
        for line in self.missing:
            report(line)
        for path in good:
            try:
                found = self._kept(path, target) or self._one(path, target)
            except PhotoError as error:
                found = [{"file": path.name, "error": " ".join(str(error).split())}]
            rows += found
            report(f"{path.name}: {found[0].get('error') or 'inverted'}")
            write_text(target / TABLE, _table(rows))
        write_text(target / TABLE, _table(rows))
        return rows

    def _key(self, path: Path) -> str:
        return f"{self.world.cutter.key(path)}-{self.made_with}"

    def _kept(self, path: Path, target: Path) -> list[Row] | None:
        """Return the rows of a photograph that was inverted before with the same file, weights and judges."""
        codes = target / f"{path.name}.safetensors"
        images = [target / f"{path.name}.{space}.png" for space in self.spaces]
        if not all(file.is_file() for file in (codes, *images)):
            return None
        try:
            said = checkpoints.read_metadata(codes)
        except ValueError:  # invert it again
            return None
        return said["measures"] if said.get("key") == self._key(path) else None

    @torch.no_grad()
    def _one(self, path: Path, target: Path) -> list[Row]:
        image = self.world.cutter.crop(path)[None].to(self.inverter.generator.w_avg.device)
        inversion, rows = self.inverter.invert(image), []
        for space in self.spaces:
            decoded = inversion.decode(self.inverter.generator, space).clamp(-1, 1)
            save_image(target / f"{path.name}.{space}.png", decoded[0].cpu())
            rows.append({"file": path.name, "space": space, **self._measures(decoded, image)})
        parts = {name: getattr(inversion, name) for name in ("w", "w_plus", "feature")}
        metadata = {"kind": KIND, "world": self.world.name, "key": self._key(path), "measures": rows}
        if inversion.feature is not None and inversion.decoder.index is not None:
            metadata["feature_index"] = inversion.decoder.index
        kept = {name: part for name, part in parts.items() if part is not None}
        if isinstance(inversion.decoder, Tuned):  # without the batch
            kept |= {f"{TUNED}{name}": value[0] for name, value in inversion.decoder.tensors.items()}
        # Last: what has its codes is complete.
        checkpoints.save_weights(target / f"{path.name}.safetensors", kept, metadata=metadata, half=False)
        return rows

    def _measures(
        self, decoded: Float[Tensor, "1 3 h w"], image: Float[Tensor, "1 3 h w"]
    ) -> dict[str, float | str]:
        """Return the measures at the size that losses use: at most 256 pixels, cars without black rows."""
        decoded, image = self.world.view(decoded), self.shown(image)
        found = {"psnr": psnr(decoded, image), "ssim": ssim(decoded, image)}
        for name, judge in self.judges.items():
            found[name] = getattr(judge, "similarity", judge)(decoded, image)
        named = {}
        if "perceptual" in self.judges:
            named["perceptual_name"] = distance_name(self.judges["perceptual"])
        return {name: float(value) for name, value in found.items()} | named


def tune(generator: nn.Module, path: Path) -> None:
    """Load the tensors that were tuned for a photograph into the generator.

    Raises:
        WeightsError: the file has none, or was made with another generator.
    """
    tensors, _ = checkpoints.load_weights(path, kind=KIND)
    found = {name.removeprefix(TUNED): t for name, t in tensors.items() if name.startswith(TUNED)}
    if not found:
        raise WeightsError(f"{path} has no tuned weights; `clcae invert --method pti` writes them")
    checkpoints.load_into(generator, {**generator.state_dict(), **found}, source=path)


def _table(rows: list[Row]) -> str:
    return pd.DataFrame(rows, columns=_COLUMNS).to_csv(index=False)
