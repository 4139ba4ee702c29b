"""What was worked out lately, so that it need not be again (no section of the paper)."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Recent:
    """Keeps the `limit` values used last; what raises is not kept."""

    def __init__(self, limit: int = 16) -> None:
        self._limit, self._values = limit, OrderedDict[Hashable, Any]()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of this key, made now if it is not there."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self._limit:
            self._values.popitem(last=False)
        return self._values[key]
