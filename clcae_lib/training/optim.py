"""Learning rates, EMA weights, and gradients of several processes."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau


def channels_last(network: nn.Module) -> nn.Module:
    """Return the network with its 4-D weights in channels-last order, the fastest for convolutions."""
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def placed(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a copy of the network on a device, in `channels_last` order."""
    return channels_last(copy.deepcopy(network).to(device))


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode, and restore their mode at the end."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


def cosine(step: int, steps: int, *, warmup: int, floor: float = 0.0) -> float:
    """Return the learning rate's factor at a step: a linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Plateau:
    """The published schedule: a tenth of the learning rate after ten epochs without a better validation loss.

    torch's scheduler is applied to a separate optimizer, because the trained one may be wrapped.
    """

    def __init__(self, lr: float) -> None:
        self.start = lr
        self._rates = torch.optim.SGD([torch.zeros(1)], lr=lr)
        self._rule = ReduceLROnPlateau(self._rates, factor=0.1, patience=10)

    @property
    def factor(self) -> float:
        """The current learning rate as a share of the initial one."""
        return self._rates.param_groups[0]["lr"] / self.start

    def step(self, loss: float) -> None:
        """Update the schedule with an epoch's mean validation loss."""
        self._rule.step(loss)

    def state(self) -> dict[str, Any]:
        """Return the state for a resume."""
        rule, rate = self._rule, self._rates.param_groups[0]["lr"]
        counts = {"num_bad_epochs": rule.num_bad_epochs, "last_epoch": rule.last_epoch}
        return {"rate": rate, "best": float(rule.best), **counts}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._rates.param_groups[0]["lr"] = float(state["rate"])
        for name in ("best", "num_bad_epochs", "last_epoch"):
            setattr(self._rule, name, state[name])


def make_ranger(parameters: Iterable[nn.Parameter], *, lr: float) -> torch.optim.Optimizer:
    """Return the published optimizer: rectified Adam with centred gradients and look-ahead.

    `degenerated_to_sgd` gives the published first five steps, momentum without normalisation; without it,
    this package's Ranger increases the loss in these steps.
    """
    from pytorch_optimizer import Ranger

    return Ranger(parameters, lr=lr, betas=(0.95, 0.999), eps=1e-5, k=6, alpha=0.5, degenerated_to_sgd=True)


def refuse_unlike(saved: Any, own: Any, *, name: str) -> None:
    """Raise an error if a saved value differs in structure from a training's, before anything is restored.

    Mappings must have at least the training's names (some optimizers add names in the first step), sequences
    its length, and so on inside them. A value that is None in the training may be saved as anything.

    Raises:
        ValueError: they differ; the message names the first value.
    """
    if own is None:
        return
    kinds = (float, int) if isinstance(own, float) else type(own)
    if not isinstance(saved, kinds) or isinstance(saved, bool) != isinstance(own, bool):
        raise ValueError(f"{name} is {type(saved).__name__}, expected {type(own).__name__}")
    if isinstance(own, Mapping):
        if missing := own.keys() - saved.keys():
            raise ValueError(f"{name} has no {min(missing)}")
        for key in own:
            refuse_unlike(saved[key], own[key], name=f"{name}.{key}")
    elif isinstance(own, (list, tuple)):
        if len(saved) != len(own):
            raise ValueError(f"{name} has {len(saved)} values, expected {len(own)}")
        for index, value in enumerate(own):
            refuse_unlike(saved[index], value, name=f"{name}.{index}")


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimizer of the Adam family.

    Raises:
        ValueError: a setting such as the learning rate has another type, or a moment another shape than its
            weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    refuse_unlike(state["param_groups"], groups, name="param_groups")
    optimizer.load_state_dict(dict(state))
    names = {frozenset(moments) for moments in optimizer.state.values()}
    if len(names) > 1:
        raise ValueError(f"weights have different moments: {sorted(map(sorted, names))}")
    for weight, moments in optimizer.state.items():
        if missing := {"exp_avg", "exp_avg_sq"} - moments.keys():
            raise ValueError(f"a weight has no {min(missing)}")
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.ndim and moment.shape != weight.shape:
                raise ValueError(f"{name} is {tuple(moment.shape)}, its weights are {tuple(weight.shape)}")


def half_life(seen: int, *, target: float, ramp: float) -> float:
    """Return the EMA's half life in images after `seen` images: `ramp` times `seen`, at most `target`."""
    return max(min(target, ramp * seen), 1e-8)


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, *, images: int, half_life: float) -> None:
    """Move the EMA weights toward those of `model`, by the share for `images` images at this half life.

    The share changes from step to step, and states store the EMA under the model's names; torch's
    AveragedModel would rename them.
    """
    weight = 1 - 0.5 ** (images / half_life)
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), weight)
    for old, new in zip(ema.buffers(), model.buffers(), strict=True):
        old.copy_(new)


@torch.no_grad()
def average_gradients(fabric: Fabric, *networks: nn.Module) -> None:
    """Replace gradients, and the statistics of batch normalisation, by their means over the ranks.

    Fabric's wrapping (DistributedDataParallel) is not used, for three reasons. It averages only gradients of
    `forward`, but trainings call `mapping`, `synthesis` and `offsets`. It must search the graph of every step
    for layers that coarse stages of the generator and frozen parts of encoders do not use. It copies the
    statistics of the first rank to all others. (With two processes, its gradients of a gradient penalty equal
    these.)
    """
    shared = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    if fabric.world_size == 1 or not shared:
        return
    norms = [part for network in networks for part in network.modules() if isinstance(part, _BatchNorm)]
    shared += [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    flat = fabric.all_reduce(torch.cat([value.reshape(-1) for value in shared]), reduce_op="mean")
    for value, part in zip(shared, flat.split([value.numel() for value in shared]), strict=True):
        value.copy_(part.view(value.shape))


def gather(fabric: Fabric, rows: Float[Tensor, "local ..."]) -> Float[Tensor, "all ..."]:
    """Return the rows of every rank, with gradient."""
    return rows if fabric.world_size == 1 else fabric.all_gather(rows, sync_grads=True).flatten(0, 1)
