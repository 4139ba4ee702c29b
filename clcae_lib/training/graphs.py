"""Steps of a training as CUDA graphs: recorded once, then replayed.

The networks here are small: a step of the inversion launches 3,400 kernels, which takes a host several times
as long as the GPU needs to run them. A recorded step is a single launch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clcae_lib.devices import to_device

Step = Callable[..., dict[str, Tensor]]
WARM_UP = 3
"""Steps of each kind that run as usual before one is recorded, as torch asks for."""


class CudaGraphs:
    """Runs steps on a device: on a CUDA one recorded if `enabled`, elsewhere as they are.

    A recorded step must not read a value back to the host, and its Python code runs only while it is
    recorded. So whatever changes from step to step is one of its inputs, or a tensor that is changed in place
    as the learning rate is.
    """

    def __init__(self, device: torch.device | str, *, enabled: bool) -> None:
        self.device = torch.device(device)
        self.enabled = enabled and self.device.type == "cuda"
        self._runs: dict[Any, int] = {}
        self._recorded: dict[Any, tuple[Any, dict[str, Tensor], dict[str, Tensor]]] = {}

    def prepare(self, optimizer: Any) -> None:
        """Let an optimizer be recorded, its learning rate a tensor; or not, if steps are not recorded.

        An optimizer that cannot be recorded, such as Ranger, which counts its steps in Python, ends the
        recording of all steps.
        """
        self.enabled &= all("capturable" in group for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = self.enabled
            rate = float(group["lr"])
            group["lr"] = torch.tensor(rate, device=self.device) if self.enabled else rate
        if self.enabled:  # of a run that was resumed from a state whose steps were not recorded
            for held in optimizer.state.values():
                held["step"] = held["step"].to(self.device)

    def __call__(self, kind: Any, step: Step, **inputs: Tensor) -> dict[str, Tensor]:
        """Run a step and return its tensors; those of a recorded step are overwritten by the next one.

        Args:
            kind: what the recording depends on, such as the resolution; each kind is recorded by itself.
        """
        if not self.enabled:
            return step(**{name: to_device(value, self.device) for name, value in inputs.items()})
        if kind not in self._recorded:
            self._runs[kind] = self._runs.get(kind, 0) + 1
            placed = {name: to_device(value, self.device).clone() for name, value in inputs.items()}
            if self._runs[kind] <= WARM_UP:
                return self._aside(step, placed)
            self._record(kind, step, placed)
        else:
            for name, place in self._recorded[kind][1].items():
                place.copy_(to_device(inputs[name], self.device))
        graph, _, outputs = self._recorded[kind]
        graph.replay()
        return outputs

    def _aside(self, step: Step, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a step on a stream of its own."""
        here, aside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            outputs = step(**inputs)
        here.wait_stream(aside)
        return outputs

    def _record(self, kind: Any, step: Step, inputs: dict[str, Tensor]) -> None:
        """Record a step without running it."""
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = {name: value.detach() for name, value in step(**inputs).items()}
        self._recorded[kind] = (graph, inputs, outputs)
