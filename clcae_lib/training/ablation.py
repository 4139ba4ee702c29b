"""Short trainings of variants of the inversion, all alike but for their switches (no section of the paper).

A variant is what `notebooks/ablations.yaml` holds for it: fields of `InversionConfig` by name, and others in
`settings`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.config import ConfigError
from clcae_lib.training.encoders import Parts, world_parts
from clcae_lib.training.inversion import InversionConfig
from clcae_lib.training.loop import fit

_OWN_ALIGNMENT = ("alignment_steps", "alignment_settings")


def variant_config(variant: Mapping[str, Any], *, steps: int, **shared: Any) -> InversionConfig:
    """Return the configuration of one variant; intervals of the log and the warm-up follow from `steps`.

    Args:
        variant: fields that it changes, such as `{"feature_attention": "off"}`; those in `settings` come
            last. The empty mapping is the full method.
        steps: steps of the training.
        shared: fields of `InversionConfig` that all variants have, such as `world`, `seed` or `images`.

    Raises:
        ConfigError: the variant trains an alignment of its own.
        pydantic.ValidationError: a field or a value is not valid.
    """
    if own := [name for name in _OWN_ALIGNMENT if variant.get(name)]:
        raise ConfigError(f"{', '.join(own)}: this variant trains another alignment; use `variant_parts`")
    brief = {"log_every": max(1, steps // 20), "validate_every": max(1, steps // 8), "sheet_every": steps + 1}
    brief |= {"checkpoint_every": max(1, steps // 4), "warmup": min(50, max(1, steps // 10))}
    fields = {name: value for name, value in variant.items() if name not in ("settings", *_OWN_ALIGNMENT)}
    common = {"validation_images": 64, "tensorboard": False, "steps": steps, **shared, **brief}
    return InversionConfig(**{**common, **fields, **variant.get("settings", {})})


def variant_parts(
    config: InversionConfig, folder: Path, *, alignment_steps: int = 0, **alignment_settings: Any
) -> Parts:
    """Return the frozen networks of a training, with an alignment that is trained here or the shipped one.

    Args:
        config: the configuration of the inversion; world, seed and device are also those of the alignment.
        folder: where the alignment is trained.
        alignment_steps: steps of its training; with 0 the shipped alignment is used.
        alignment_settings: fields of `AlignmentConfig` that it changes.

    Raises:
        ConfigError: there are settings for the alignment and no steps.
    """
    if alignment_settings and not alignment_steps:
        raise ConfigError(f"{', '.join(alignment_settings)}: set alignment_steps as well")
    parts = world_parts(config)
    if not alignment_steps:
        return parts
    brief = {"steps": alignment_steps, "warmup": max(1, alignment_steps // 10), "tensorboard": False}
    brief |= {"validation_pairs": 200, "final_pairs": 200, "neighbour_codes": 5, "seed": config.seed}
    brief |= {"validate_every": alignment_steps, "sheet_every": alignment_steps + 1}
    own = AlignmentConfig(**brief, world=config.world, device=config.device, **alignment_settings)
    task = AlignmentTask(own, parts.generator)
    fit(task, own, folder)
    frozen = [module.requires_grad_(False).eval().cpu() for module in (task.images, task.codes)]
    return replace(parts, alignment=(*frozen, float(task.loss.scale.detach())))
