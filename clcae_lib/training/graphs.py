"""Steps of a training as CUDA graphs: recorded once, then replayed.

The networks are small: a step of the inversion's training launches 3,400 kernels, and the host needs several
times as long to launch them as the GPU to run them. A recorded step is a single launch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clcae_lib.devices import to_device

Step = Callable[..., dict[str, Tensor]]
WARM_UP = 3
"""Steps of each kind that run normally before one is recorded, as torch requires."""


class CudaGraphs:
    """Runs steps on a device; on a CUDA device they are recorded if `enabled`.

    A recorded step must not copy a value to the host, and its Python code runs only while it is recorded. So
    everything that changes from step to step must be an input, or a tensor that is changed in place, such as
    the learning rate.
    """

    def __init__(self, device: torch.device | str, *, enabled: bool) -> None:
        self.device = torch.device(device)
        self.enabled = enabled and self.device.type == "cuda"
        self._runs: dict[Any, int] = {}
        self._recorded: dict[Any, tuple[Any, dict[str, Tensor], dict[str, Tensor]]] = {}

    def prepare(self, optimizer: Any) -> None:
        """Prepare an optimizer for recording (its learning rate becomes a tensor), if steps are recorded.

        If it cannot be recorded, such as Ranger, which counts its steps in Python, no step is recorded.
        """
        self.enabled &= all("capturable" in group for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = self.enabled
            rate = float(group["lr"])
            group["lr"] = torch.tensor(rate, device=self.device) if self.enabled else rate
        if self.enabled:  # for a run that resumes from a state whose steps were not recorded
            for held in optimizer.state.values():
                held["step"] = held["step"].to(self.device)

    def __call__(self, kind: Any, step: Step, **inputs: Tensor) -> dict[str, Tensor]:
        """Run a step and return its tensors; those of a recorded step are overwritten by the next one.

        Args:
            kind: value that the recording depends on, such as the resolution; each kind has its own.
        """
        if not self.enabled:
            return step(**{name: to_device(value, self.device) for name, value in inputs.items()})
        if kind not in self._recorded:
            self._runs[kind] = self._runs.get(kind, 0) + 1
            placed = {name: to_device(value, self.device).clone() for name, value in inputs.items()}
            if self._runs[kind] <= WARM_UP:
                return self._run_on_side_stream(step, placed)
            self._record(kind, step, placed)
        else:
            for name, place in self._recorded[kind][1].items():
                place.copy_(to_device(inputs[name], self.device))
        graph, _, outputs = self._recorded[kind]
        graph.replay()
        return outputs

    def _run_on_side_stream(self, step: Step, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a step on a separate stream."""
        here, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            outputs = step(**inputs)
        here.wait_stream(side)
        return outputs

    def _record(self, kind: Any, step: Step, inputs: dict[str, Tensor]) -> None:
        """Record a step without running it."""
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = {name: value.detach() for name, value in step(**inputs).items()}
        self._recorded[kind] = (graph, inputs, outputs)
