"""Configurations of networks: constructor arguments, from which a network can be rebuilt."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn


def configured(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate a network's `__init__` so that `self.config` holds its arguments, defaults included.

    `type(network)(**network.config)` builds the same network. JSON arguments stay JSON values.
    Weights files store them as metadata `config`.
    """
    signature = inspect.signature(init)

    @wraps(init)
    def configure(self: nn.Module, *args: Any, **options: Any) -> None:
        bound = signature.bind(self, *args, **options)
        bound.apply_defaults()
        _, *arguments = bound.arguments.items()  # without `self`
        self.config = {name: list(v) if isinstance(v, tuple) else v for name, v in arguments}
        init(self, *args, **options)

    return configure
