"""Every measure of every image in one Parquet file, each row with where it comes from."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.reconstruction import decode
from clcae_lib.evaluation.statistics import summarise
from clcae_lib.files import atomic_path
from clcae_lib.inversion import Inversion, Inverter
from clcae_lib.metrics import ms_ssim, ms_ssim_scales, mse, psnr, ssim
from clcae_lib.provenance import commit, device_text, versions
from clcae_lib.worlds.perceptual import LpipsAlex, distance_name, find_alexnet

MEASURED = ("mse", "psnr", "ssim", "ms_ssim", "lpips", "perceptual", "identity")
ORIGIN = ("image", "method", "space", "seed", "world", "device", "versions", "commit")
NAMED = ("perceptual_name", "objective", "ms_ssim_scales")
KEY = ["image", "method", "space", "seed", "world"]
"""What names a row; no two rows of a file have it in common."""

Distance = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def reconstruction_records(
    inverter: Inverter,
    images: Float[Tensor, "n 3 h w"],
    *,
    method: str,
    seed: int,
    judges: Judges,
    image_ids: list[str] | None = None,
    inversion: Inversion | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """One row for each image and space: `ORIGIN`, `MEASURED`, `NAMED`.

    `lpips` is nan where AlexNet's weights are not on the machine; `perceptual` is always the world's own
    distance in the copy that measures, called by `perceptual_name`. `objective` says what a method minimised
    for each image, its perceptual distance by name; it is empty for an encoder. Errors are on [-1, 1], PSNR
    is in dB, identity a cosine.

    Args:
        inverter: finds the codes, and has the generator that decodes them.
        images: in [-1, 1].
        method: its name in tables.
        seed: of its training.
        judges: the copies that measure.
        image_ids: a lasting name for each image, such as "test/17"; their rows by default.
        inversion: the codes, where they have been found already.
        batch_size: pictures decoded at once.

    Raises:
        ValueError: there are not as many names as images, or a name twice.
    """
    names = [str(i) for i in range(len(images))] if image_ids is None else list(image_ids)
    if len(names) != len(images) or len(set(names)) != len(names):
        raise ValueError(f"image_ids: {len(names)} names for {len(images)} images, each one needed once")
    inversion = inverter.invert(images) if inversion is None else inversion
    distances = _distances(judges)
    frames = []
    for space in inversion.spaces:
        pictures = decode(inverter, inversion, space, batch_size=batch_size)
        columns = _measure(pictures, images, judges, distances)
        frames.append(
            pd.DataFrame({"image": names, "method": method, "space": space, "seed": seed, **columns})
        )
    facts = {"world": judges.world.name, "device": device_text(str(judges.device))}
    facts |= {"versions": versions(), "commit": commit(), "ms_ssim_scales": ms_ssim_scales(images.shape[-1])}
    facts |= {"perceptual_name": distance_name(distances["perceptual"])}
    facts |= {"objective": getattr(inverter, "objective", "")}
    frame = pd.concat(frames, ignore_index=True).assign(**facts)
    return frame[[*ORIGIN, *MEASURED, *NAMED]]


def _distances(judges: Judges) -> dict[str, Distance | None]:
    """LPIPS, if it is here, and the world's own distance, whichever of the two the judges use."""
    weights = find_alexnet()
    return {
        "lpips": LpipsAlex(weights).to(judges.device) if weights is not None else None,
        "perceptual": judges.world.perceptual("measure", judges.device),
    }


def _measure(
    pictures: Tensor, images: Tensor, judges: Judges, distances: dict[str, Distance | None]
) -> dict[str, list[float]]:
    columns = {name: f(pictures, images).tolist() for name, f in _PLAIN.items()}
    for name, distance in distances.items():
        columns[name] = (
            [float("nan")] * len(images) if distance is None else _pairs(distance, pictures, images, judges)
        )
    return columns | {"identity": judges.similarity(pictures, images).tolist()}


_PLAIN: dict[str, Distance] = {"mse": mse, "psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}


def _pairs(distance: Distance, pictures: Tensor, images: Tensor, judges: Judges) -> list[float]:
    pairs = zip(pictures.split(64), images.split(64), strict=True)
    return [x for a, b in pairs for x in distance(a.to(judges.device), b.to(judges.device)).tolist()]


def write_records(frame: pd.DataFrame, path: Path | str) -> Path:
    """Add rows to a Parquet file, whole or not at all, and write a summary beside it as `<name>.csv`.

    A row with the image, method, space, seed and world of an earlier one takes its place, so measuring anew
    doubles nothing. The summary has a row for each method, space and measure: mean and 95 % interval
    over images (each averaged over seeds), images and seeds.

    Raises:
        ValueError: a column is missing, or the file's columns are others.
    """
    path = Path(path)
    missing = [name for name in ORIGIN if name not in frame.columns]
    if missing:
        raise ValueError(f"{path}: the rows lack {', '.join(missing)}")
    if path.is_file():
        earlier = pd.read_parquet(path)
        if set(earlier.columns) != set(frame.columns):
            raise ValueError(f"{path} has other columns; move it away, or measure into another file")
        frame = pd.concat([earlier, frame], ignore_index=True)
    frame = frame.drop_duplicates(KEY, keep="last")
    with atomic_path(path) as partial:
        frame.to_parquet(partial, index=False)
    with atomic_path(path.with_suffix(".csv")) as partial:
        summary(frame).to_csv(partial, index=False)
    return path


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Means with intervals, as `write_records` writes them."""
    groups = ["world", "method", "space"]
    columns = [name for name in MEASURED if name in frame.columns]
    seeds = frame.groupby(groups)["seed"].nunique().rename("seeds").reset_index()
    means = frame.groupby([*groups, "image"], sort=False)[columns].mean().reset_index()
    table = summarise(means, by=groups, columns=columns).rename(columns={"count": "images"})
    return table.merge(seeds, on=groups)
