"""What was worked out lately, so that it need not be again (no section of the paper)."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Recent:
    """Keeps the `limit` values used last; what raises is not kept. Several threads may share one."""

    def __init__(self, limit: int = 16) -> None:
        self._limit, self._values = limit, OrderedDict[Hashable, Any]()
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of this key, made now if it is not there; other threads wait meanwhile."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
            return self._values[key]
