"""Any encoder of the comparison, trained here and now in the same number of steps as the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clcae_lib.inversion import ClcaeInverter, Inverter
from clcae_lib.inversion.methods import PRESETS
from clcae_lib.training.inversion import InversionConfig, InversionTask, world_parts
from clcae_lib.training.loop import fit
from clcae_lib.training.peers import PeerConfig, task_of

__all__ = ["train_inverter"]


def train_inverter(name: str, folder: Path | str, *, steps: int, **settings: Any) -> Inverter:
    """The inverter of a method, after a training of so many steps; resumed where the folder has one.

    Args:
        name: an encoder of `clcae_lib.inversion.METHODS`.
        folder: of the run.
        steps: of the training; also what the rates' schedules end with.
        settings: fields that CLCAE's and the peers' configurations have in common, such as `world`, `seed`,
            `device`, `batch_size`, `images` and `start`.

    Raises:
        ConfigError, WorldError: as the trainings raise them.
    """
    pace = {"log_every": max(1, steps // 20), "validate_every": steps + 1, "sheet_every": steps + 1}
    pace |= {"checkpoint_every": max(1, steps // 4), "warmup": min(50, max(1, steps // 10))}
    shared = {"steps": steps, "tensorboard": False, "validation_images": 32, **pace, **settings}
    if name in PRESETS:
        config = InversionConfig(preset=PRESETS[name], **shared)
        task = InversionTask(config, world_parts(config))
        fit(task, config, folder)
        return ClcaeInverter(task.result, task.generator)
    peer = task_of(PeerConfig(method=name, **shared))
    fit(peer, peer.config, folder)
    return peer.made(peer.result)
