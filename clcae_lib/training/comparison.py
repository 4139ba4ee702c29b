"""Train any encoder of the comparison by its name, for an equal number of steps."""

from pathlib import Path
from typing import Any

from clcae_lib.inversion import ClcaeInverter, Inverter
from clcae_lib.inversion.methods import PRESETS
from clcae_lib.training.encoders import world_parts
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.training.loop import fit
from clcae_lib.training.peers import PeerConfig, task_of


def train_inverter(name: str, folder: Path | str, *, steps: int, **settings: Any) -> Inverter:
    """Return the inverter of a method after a short training, which resumes a run in the folder.

    Args:
        name: name of an encoder in `clcae_lib.inversion.METHODS`.
        steps: length of the training and of its learning-rate schedule.
        settings: fields of `EncoderConfig`, such as `world`, `seed`, `device`, `batch_size` and `start`.
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
