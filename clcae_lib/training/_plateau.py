"""The published schedule: a tenth of the learning rate when the validation loss has stopped falling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ["Plateau"]


class Plateau:
    """The rate that a run of validation losses leaves: torch's rule with the published factor and patience.

    It drives an optimizer of its own, so that the trained one may be wrapped in any way.

    Args:
        lr: learning rate at the start.
        factor: what the rate is multiplied by.
        patience: epochs without a better loss that are let pass.
    """

    def __init__(self, lr: float, *, factor: float = 0.1, patience: int = 10) -> None:
        self.start = lr
        self._rates = torch.optim.SGD([torch.zeros(1)], lr=lr)
        self._rule = ReduceLROnPlateau(self._rates, factor=factor, patience=patience)

    @property
    def factor(self) -> float:
        """The rate now as a share of the first."""
        return self._rates.param_groups[0]["lr"] / self.start

    def step(self, loss: float) -> None:
        """Take note of an epoch's mean validation loss."""
        self._rule.step(loss)

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {
            "rate": self._rates.param_groups[0]["lr"],
            "best": float(self._rule.best),
            "num_bad_epochs": int(self._rule.num_bad_epochs),
            "last_epoch": int(self._rule.last_epoch),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self._rates.param_groups[0]["lr"] = float(state["rate"])
        for name in ("best", "num_bad_epochs", "last_epoch"):
            setattr(self._rule, name, state[name])
