"""Make small files of the kinds that people bring: checkpoints, directions and photographs.

Networks are tiny and untrained; names, nesting and containers are those of the code that each file is of.
"""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from clcae_lib.models import Generator
from tests.nvidia_pickle import network, nvidia_modules, small_tensors, write_snapshot
from tests.unit._tiny import tiny_generator

DIM, SIDE, ROWS = 8, 32, 8
CHANNELS = {4: 8, 8: 8, 16: 6, 32: 6}
MEAN = torch.full((DIM,), 0.25)
State = dict[str, Tensor]


def state(generator: Generator | None = None, *, without: str = "-", prefix: str = "") -> State:
    """A generator's state dict, without the names that begin so."""
    tensors = (generator or tiny_generator(SIDE)).state_dict()
    return {f"{prefix}{n}": t.clone() for n, t in tensors.items() if not n.startswith(without)}


def reshaped(change: Callable[[str, Tensor], Tensor]) -> State:
    """A state dict whose tensors were changed by name."""
    return {name: change(name, tensor) for name, tensor in state().items()}


def _channels(count: int) -> State:
    """A generator of grey images (1) or with transparency (4)."""

    def change(name: str, tensor: Tensor) -> Tensor:
        if name.startswith("to_rgb") and tensor.shape[-3:-2] != () and name.endswith("bias"):
            return torch.zeros(1, count, 1, 1)
        if name.startswith("to_rgb") and name.endswith("conv.weight"):
            return torch.zeros(1, count, *tensor.shape[2:])
        return tensor

    return reshaped(change)


def nvidia_channels(count: int) -> State:
    tensors = small_tensors(SIDE)
    for name in [n for n in tensors if ".torgb." in n]:
        if name.endswith("torgb.weight"):
            tensors[name] = torch.zeros(count, *tensors[name].shape[1:])
        if name.endswith("torgb.bias"):
            tensors[name] = torch.zeros(count)
    return tensors


def nvidia_wide() -> State:
    return small_tensors(SIDE) | {"synthesis.b4.const": torch.zeros(6, 4, 8)}


def stored(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def pti_tuned(path: Path) -> Path:
    """PTI's `model_ID.pt`: torch.save of NVIDIA's whole network."""
    with nvidia_modules() as stand_ins:
        torch.save(network(stand_ins, small_tensors(SIDE)), path)
    return path


def bare_network(path: Path) -> Path:
    """PTI's `pickle.dump(G)`."""
    with nvidia_modules() as stand_ins:
        path.write_bytes(pickle.dumps(network(stand_ins, small_tensors(SIDE)), protocol=4))
    return path


def snapshot(path: Path, tensors: State | None = None, **settings: Any) -> Path:
    return write_snapshot(path, small_tensors(SIDE) if tensors is None else tensors, **settings)


def foreign(path: Path) -> Path:
    save_file(state(), path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 1234567\n"
DRIVE = "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
Make = Callable[[Path], Path]
#: Generators that must work everywhere, by row and file.
USED: dict[str, Make] = {
    "1 ddp_module.pt": lambda p: stored(p, {"g_ema": state(prefix="module."), "args": argparse.Namespace()}),
    "1 ddp_bare.pt": lambda p: stored(p, state(prefix="module.")),
    "2 no_noises.pt": lambda p: stored(p, {"g_ema": state(without="noises."), "latent_avg": MEAN}),
    "3 cm1.pt": lambda p: stored(
        p, {"g_ema": state(Generator(SIDE, DIM, 2, channels={4: 8, 8: 8, 16: 4, 32: 2}))}
    ),
    "4 n_mlp2.pt": lambda p: stored(p, {"g_ema": state(Generator(SIDE, DIM, 2, channels=CHANNELS))}),
    "4 n_mlp8.pt": lambda p: stored(p, {"g_ema": state(Generator(SIDE, DIM, 8, channels=CHANNELS))}),
    "6 latent_avg_rows.pt": lambda p: stored(p, {"g_ema": state(), "latent_avg": MEAN.repeat(ROWS, 1)}),
    "6 latent_avg_one_row.pt": lambda p: stored(p, {"g_ema": state(), "latent_avg": MEAN[None]}),
    "7 only_g.pt": lambda p: stored(p, {"g": state()}),
    "7 bare.pt": lambda p: stored(p, state()),
    "7 generator.pt": lambda p: stored(p, {"generator": state()}),
    "7 state_dict.pt": lambda p: stored(p, {"state_dict": {"g_ema." + n: t for n, t in state().items()}}),
    "8 shared_dict.pt": lambda p: stored(p, dict.fromkeys(("g", "g_ema"), state())),
    "12 pti_tuned.pt": pti_tuned,
    "13 bare_G.pkl": bare_network,
    "16 plain.PKL": snapshot,
    "16 called.pt": snapshot,
    "25 foreign.safetensors": foreign,
    "25 foreign.SAFETENSORS": foreign,
}
#: Generators that are refused, with the words that must be read, by row and file.
REFUSED: dict[str, tuple[Make, str]] = {
    "14 whole_module.pt": (lambda p: stored(p, tiny_generator(SIDE)), r"names clcae_lib\.models"),
    "17 conditional.pkl": (lambda p: snapshot(p, c_dim=10), "conditional"),
    "18 grey.pkl": (lambda p: snapshot(p, nvidia_channels(1)), "grey.*1 channel"),
    "18 rgba.pkl": (lambda p: snapshot(p, nvidia_channels(4)), "4 channels"),
    "18 grey.pt": (lambda p: stored(p, {"g_ema": _channels(1)}), "grey.*1 channel"),
    "19 wide.pkl": (lambda p: snapshot(p, nvidia_wide()), "not square"),
    "19 wide.pt": (
        lambda p: stored(p, {"g_ema": state() | {"input.input": torch.zeros(1, 8, 4, 8)}}),
        "not square",
    ),
    "20 stylegan3.pkl": (
        lambda p: snapshot(p, {"synthesis.input.freqs": torch.zeros(4, 2), "mapping.w_avg": MEAN}),
        "StyleGAN3",
    ),
    "22 lfs.pt": (lambda p: text(p, LFS), "Git LFS pointer.*git lfs pull"),
    "22 lfs.safetensors": (lambda p: text(p, LFS), "Git LFS pointer.*git lfs pull"),
    "23 drive.pt": (lambda p: text(p, DRIVE), "web page.*quota"),
}


def array(path: Path, content: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.save(file, content)
    return path


def vector(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def ganspace_npz(path: Path) -> Path:
    """What GANSpace's `visualize.py` caches."""
    parts = {"act_comp": vector(3, 1, DIM), "act_mean": vector(1, DIM), "act_stdev": vector(3).abs()}
    parts |= {"lat_comp": vector(3, 1, DIM), "lat_mean": vector(1, DIM), "lat_stdev": vector(3).abs()}
    with path.open("wb") as file:
        np.savez(
            file, **{n: t.numpy() for n, t in parts.items()}, var_ratio=np.ones(3), random_stdevs=np.ones(3)
        )
    return path


#: Files of directions, by row and file, with the number of sliders that each gives.
DIRECTIONS: dict[str, tuple[Make, int]] = {
    "27 D.npy": (lambda p: array(p, vector(DIM).numpy()), 1),
    "27 one_D.npy": (lambda p: array(p, vector(1, DIM).numpy()), 1),
    "27 L_D.npy": (lambda p: array(p, vector(ROWS, DIM).numpy()), 1),
    "27 one_L_D.npy": (lambda p: array(p, vector(1, ROWS, DIM).numpy()), 1),
    "27 float64.NPY": (lambda p: array(p, vector(DIM).double().numpy()), 1),
    "27 D.pt": (lambda p: stored(p, vector(DIM)), 1),
    "27 L_D.pth": (lambda p: stored(p, vector(ROWS, DIM)), 1),
    "27 named.safetensors": (lambda p: save_file({"age": vector(DIM), "yaw": vector(ROWS, DIM)}, p) or p, 2),
    "29 ganspace.npz": (ganspace_npz, 3),
    "29 one.npz": (lambda p: _savez(p, direction=vector(1, DIM).numpy()), 1),
    "29 ganspace.pkl": (
        lambda p: stored(p, {"comp": vector(3, 1, DIM), "mean": vector(1, DIM), "std": vector(3).abs()}),
        3,
    ),
    "29 pickled.pkl": (lambda p: _pickled(p, vector(1, DIM).numpy()), 1),
    "32 factor.pt": (lambda p: stored(p, {"ckpt": "550000.pt", "eigvec": vector(DIM, DIM)}), 6),
}


def _savez(path: Path, **arrays: np.ndarray) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def _pickled(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path
