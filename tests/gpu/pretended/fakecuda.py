"""A pretend CUDA device on a CPU-only torch: ``import fakecuda`` before anything asks whether there is a GPU.

Tensors on "cuda" lie in host memory, and every operator checks what a GPU checks: one device for all tensors,
generators of the device, no implicit ``numpy()``. ``counted()`` tells how many kernels a call launches and how often
the host waits.
As a plugin of pytest (``-p fakecuda``) it makes the ``device`` fixture's second value, "cuda", runnable.
"""

import contextlib
import ctypes
import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def _load():
    """The library is loaded with torch's own, before anything in torch has asked for the hooks of CUDA."""
    place = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    names = (
        "libtorch_global_deps.so",
        "libc10.so",
        "libtorch_cpu.so",
        "libtorch.so",
        "libshm.so",
        "libtorch_python.so",
    )
    for path in (*(place / name for name in names), _HERE / "out" / "fakecuda_core.so"):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    import torch

    spec = importlib.util.spec_from_file_location("fakecuda_core", _HERE / "out" / "fakecuda_core.so")
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return torch, core


torch, core = _load()
cuda = torch.cuda
if cuda.is_available() and not getattr(cuda, "_pretended", False):
    raise RuntimeError("there is a real GPU here: nothing to pretend")


class _Properties:
    name, total_memory, multi_processor_count, major, minor = "pretended GPU", 2**36, 132, 9, 0


class _Stream:
    cuda_stream = 0

    def synchronize(self):
        pass

    wait_stream = wait_event = record_event = lambda *a, **k: None


def _index(device):
    return 0


_STAND_INS = {
    "_pretended": True,
    "_initialized": True,
    "default_generators": (core.default_generator(),),
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "_lazy_init": lambda: None,
    "_lazy_call": lambda call, **_: call(),
    "init": lambda: None,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "synchronize": lambda device=None: None,
    "get_device_name": lambda device=None: _Properties.name,
    "get_device_properties": lambda device=None: _Properties,
    "get_device_capability": lambda device=None: (9, 0),
    "is_bf16_supported": lambda including_emulation=True: True,
    "_exchange_device": lambda device: 0,
    "_maybe_exchange_device": lambda device: 0,
    "empty_cache": lambda: None,
    "current_stream": lambda device=None: _Stream(),
    "is_current_stream_capturing": lambda: False,
    "memory_allocated": lambda device=None: 0,
    "memory_reserved": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "mem_get_info": lambda device=None: (2**36, 2**36),
    "get_rng_state": lambda device="cuda": core.default_generator().get_state(),
    "set_rng_state": lambda state, device="cuda": core.default_generator().set_state(state),
    "get_rng_state_all": lambda: [core.default_generator().get_state()],
    "set_rng_state_all": lambda states: core.default_generator().set_state(states[0]),
    "manual_seed": lambda seed: core.default_generator().manual_seed(int(seed)),
    "manual_seed_all": lambda seed: core.default_generator().manual_seed(int(seed)),
    "_is_in_bad_fork": lambda: False,
}
for _name, _value in _STAND_INS.items():
    setattr(cuda, _name, _value)
for _module in [cuda, sys.modules.get("torch.cuda.graphs"), sys.modules.get("torch.cuda.random")]:
    if _module is not None and hasattr(_module, "is_current_stream_capturing"):
        _module.is_current_stream_capturing = lambda: False
for _name in (
    "get_rng_state",
    "set_rng_state",
    "get_rng_state_all",
    "set_rng_state_all",
    "manual_seed",
    "manual_seed_all",
):
    setattr(cuda.random, _name, _STAND_INS[_name])


torch.backends.cudnn.enabled = False  # a CPU build has none, and warns where it is asked for
sys.modules["torch.nn.parallel.data_parallel"]._get_available_device_type = lambda: None  # a CPU build cannot scatter


# ---- cells of recurrent layers, which only a CUDA build has as one kernel -------------------------------------------
def _lstm_cell(input_gates, hidden_gates, cx, input_bias=None, hidden_bias=None):
    gates = sum(part for part in (hidden_gates, input_bias, hidden_bias) if part is not None) + input_gates
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cy = f * cx + i * g
    return o * cy.tanh(), cy, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(grad_hy, grad_cy, cx, cy, workspace, has_bias):
    i, f, g, o = workspace.chunk(4, 1)
    t = cy.tanh()
    of_hy = torch.zeros_like(cy) if grad_hy is None else grad_hy
    of_cy = of_hy * o * (1 - t**2) + (0 if grad_cy is None else grad_cy)
    slopes = (of_cy * g * i * (1 - i), of_cy * cx * f * (1 - f), of_cy * i * (1 - g**2), of_hy * t * o * (1 - o))
    gates = torch.cat(slopes, 1)
    return gates, of_cy * f, gates.sum(0) if has_bias else None


def _gru_cell(input_gates, hidden_gates, hx, input_bias=None, hidden_bias=None):
    ir, iz, i_n = (input_gates if input_bias is None else input_gates + input_bias).chunk(3, 1)
    hr, hz, h_n = (hidden_gates if hidden_bias is None else hidden_gates + hidden_bias).chunk(3, 1)
    r, z = (ir + hr).sigmoid(), (iz + hz).sigmoid()
    n = (i_n + r * h_n).tanh()
    return n + z * (hx - n), torch.cat([r, z, n, hx, h_n], 1)


def _gru_cell_backward(grad_hy, workspace, has_bias):
    r, z, n, hx, h_n = workspace.chunk(5, 1)
    of_n, of_z = grad_hy * (1 - z) * (1 - n**2), grad_hy * (hx - n) * z * (1 - z)
    of_r = of_n * h_n * r * (1 - r)
    inputs, hidden = torch.cat([of_r, of_z, of_n], 1), torch.cat([of_r, of_z, of_n * r], 1)
    biases = (inputs.sum(0), hidden.sum(0)) if has_bias else (None, None)
    return inputs, hidden, grad_hy * z, *biases


_KERNELS = torch.library.Library("aten", "IMPL")  # these stay registered as long as it lives
for _name, _kernel in {
    "_thnn_fused_lstm_cell": _lstm_cell,
    "_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
    "_thnn_fused_gru_cell": _gru_cell,
    "_thnn_fused_gru_cell_backward": _gru_cell_backward,
}.items():
    _KERNELS.impl(_name, _kernel, "CUDA")


# ---- counts ---------------------------------------------------------------------------------------------------------
class Counts:
    def __init__(self):
        self.launches, self.ops, self.waits = 0, {}, {}

    @property
    def waited(self):
        return sum(self.waits.values())


@contextlib.contextmanager
def counted():
    """Counts of what happens inside: ``launches``, ``ops`` by name, ``waits`` (where the host waits for the device)."""
    counts = Counts()
    core.count(True)
    try:
        yield counts
    finally:
        counts.launches, counts.ops, counts.waits = core.launches(), core.ops(), core.waits()
        core.count(False)


def _new_storage(cls, *args, device=None, **more):
    if device is not None and torch.device(device).type == "cuda":
        return torch.empty(args[0] if args else 0, dtype=torch.uint8, device="cuda").untyped_storage()
    return torch._C.StorageBase.__new__(cls, *args, device=device, **more)


torch.UntypedStorage.__new__ = _new_storage
