"""Audit 149 networks of torchvision, timm and segmentation-models-pytorch with random weights, and write a table.

``PYTHONPATH=. python tests/networks/run.py lines.jsonl --table notebooks/results/networks.json`` in an environment of
its own with the three libraries (``LIBRARIES`` says which versions), outside the tests. Each network has a process of
its own, with limits of time and memory, and becomes one line of the file; a second call goes on where the first ended.
"""

import argparse
import fnmatch
import json
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.product.bound import product_bound
from convkit.norms import operator_norm
from convkit.operators.calls import Row
from convkit.operators.network import Operators, read_network
from convkit.operators.trees import leaves
from convkit.provenance import versions

NAMES = Path(__file__).with_name("names.txt")
LIBRARIES = {"torchvision": "0.29.1", "timm": "1.0.31", "segmentation-models-pytorch": "0.6.0"}  # those of the table
MAPS = {"Mm", "Bmm", "Addmm", "Baddbmm", "Convolution", "Mv"}  # autograd's names of products with a matrix
JOINED = {"Add", "Sub", "Cat", "Stack", "Index", "Embedding", "Where", "CopySlices"}
JOINED |= {"NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm"}  # their gains are no maps of their own
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CHECKED, LARGEST, STEPS = 4, 20_000, 30  # rows that are checked, numbers of their inputs, steps of power iteration


# ---- one network ---------------------------------------------------------------------------------------------------
def build(name: str) -> nn.Module:
    """Return the network with random weights, in evaluation mode; gains of BatchNorm that start at 0 become 1."""
    library, name = name.split("/")
    torch.manual_seed(0)
    if library == "tv":
        model = import_module("torchvision.models").get_model(name, weights=None, **_backbone(name))
        if hasattr(model, "transform"):  # of a detector: it would enlarge the image
            model.transform.min_size, model.transform.max_size = (96,), 96
    elif library == "timm":
        model = import_module("timm").create_model(name)
    else:
        model = import_module("segmentation_models_pytorch").create_model(name, encoder_weights=None)
    for module in model.modules():
        if isinstance(module, BATCHNORMS) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)
    return model.eval()


def _backbone(name: str) -> dict[str, Any]:
    kinds = ("rcnn", "fcos", "retinanet", "ssd", "fcn", "deeplab", "lraspp")
    return {"weights_backbone": None} if any(kind in name for kind in kinds) else {}


def meetings(model: nn.Module, x: Tensor) -> dict[str, set[str]]:
    """Return for each parameter the operations in which it, or what is computed from it alone, meets the data.

    They are those of autograd's graph below the results of all modules.
    """
    leaf, nodes = x.clone().requires_grad_(), list[Any]()
    hooks = [
        module.register_forward_hook(
            lambda _, args, out: nodes.extend(t.grad_fn for t in leaves(out, Tensor) if t.grad_fn)
        )
        for module in model.modules()
    ]
    with torch.enable_grad():
        model(leaf + 0)  # a first step may be in place
    for hook in hooks:
        hook.remove()
    above: dict[Any, set[Any]] = {node: set() for node in nodes}  # by node: those that take what it gives
    while nodes:
        node = nodes.pop()
        for below, _ in node.next_functions:
            if below is not None:
                if below not in above:
                    nodes.append(below)
                above.setdefault(below, set()).add(node)
    ends = {id(node.variable): node for node in above if hasattr(node, "variable")}
    data = reached({ends[id(leaf)]}, above)
    names = {id(p): name for name, p in model.named_parameters()}
    met: dict[str, set[str]] = {}
    for number in names.keys() & ends.keys():
        alone = reached({ends[number]}, {node: found - data for node, found in above.items()})
        first = set[Any]().union(*(above[node] & data for node in alone))
        met[names[number]] = {node.name().partition("Backward")[0] for node in first}
    return met


def reached(start: set[Any], above: Mapping[Any, set[Any]]) -> set[Any]:
    """Return the nodes of a graph that are reached from some of them."""
    found, new = set(start), set(start)
    while new:
        new = set[Any]().union(*(above[node] for node in new)) - found
        found |= new
    return found


def is_map(weight: Tensor, met: set[str]) -> bool:
    """Return whether a weight of two or more axes is a linear map of its own, not a table, an addend or a gain."""
    gain = sum(n > 1 for n in weight.shape) < 2 and not met & MAPS
    return weight.ndim > 1 and bool(met - JOINED) and not gain


def coverage(model: nn.Module, x: Tensor, operators: Operators, rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Return the names of the weights that are maps: those of a row, those named as missing, and those forgotten."""
    weights = dict(model.named_parameters())
    held = {p.untyped_storage().data_ptr() for p in weights.values()}
    kernels = {name: A.kernel.untyped_storage().data_ptr() for name, A in operators.items()}
    covered = set(kernels.values())
    for name, pointer in kernels.items():
        if pointer not in held:  # computed from the weights of its module
            own = model.get_submodule(rows[name].layer).parameters()
            covered |= {p.untyped_storage().data_ptr() for p in own}
    missing = {name for name, _ in operators.missing}
    found: dict[str, list[str]] = {"covered": [], "named": [], "forgotten": []}
    for name, met in meetings(model, x).items():
        if is_map(weights[name], met):
            named = name.partition(".parametrizations.")[0].rpartition(".")[0] in missing
            kind = "covered" if weights[name].untyped_storage().data_ptr() in covered else "named"
            kind = "forgotten" if kind == "named" and not named else kind
            found[kind].append(f"{name} ({', '.join(sorted(met))})")
    return found


def ratios(model: nn.Module, operators: Operators, rows: Mapping[str, Row]) -> list[float]:
    """Return, for some layers, what a power iteration through the module itself reaches, over the norm of its row."""
    found = []
    for name, A in list(operators.items())[:: max(1, len(operators) // (2 * CHECKED))]:
        layer = model.get_submodule(rows[name].layer)
        shape = A.in_shape[:1] if isinstance(layer, nn.Linear) else A.in_shape  # of one position
        small = math.prod(shape) <= LARGEST and A.kernel.numel() <= 2**21
        if isinstance(layer, LAYERS) and small and len(found) < CHECKED:
            reached = power_iteration(lambda x, of=layer: of(x) - of(torch.zeros_like(x)), torch.randn(1, *shape))
            found.append(float(reached / operator_norm(A, 2).detach()))
    return found


def power_iteration(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return a lower bound of the norm of a linear function, by products with its Jacobian and the transpose."""
    for _ in range(STEPS):
        x = (x / x.norm()).detach().requires_grad_()
        y = f(x)
        (x,) = torch.autograd.grad(y.square().sum() / 2, x)
    return y.detach().norm()  # pyright: ignore[reportPossiblyUnboundVariable]


def slope(model: nn.Module, x: Tensor, steps: int = 4, step: float = 1e-3) -> float:
    """Return the greatest of some difference quotients of the network, which is below every Lipschitz constant."""
    v, greatest = torch.randn_like(x), 0.0
    for _ in range(steps):
        v = v / v.norm()
        above = (x + step * v).detach().requires_grad_()
        (y,) = leaves(model(above), Tensor)
        with torch.no_grad():
            (below,) = leaves(model(x - step * v), Tensor)
            change = y - below
        greatest = max(greatest, float(change.norm()) / (2 * step))
        (v,) = torch.autograd.grad(y, above, change)
    return greatest


def audit(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Return what the kit reads of a network, and what checks that do not use it say of that."""
    start = time.process_time()
    operators, rows = read_network(model, x, "note")
    result: dict[str, Any] = {"rows": len(operators), "seconds": round(time.process_time() - start, 2)}
    weights, reached = coverage(model, x, operators, rows), ratios(model, operators, rows)
    result |= {kind: len(names) for kind, names in weights.items()}
    result["missing"] = [list(part) for part in operators.missing]
    result["unnamed"] = weights["forgotten"]
    result["checked"] = len(reached)
    result["least"], result["greatest"] = (round(f(reached), 7) if reached else None for f in (min, max))
    return result


def bounded(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """Return the product bound of a network and a slope that was found, or why there is no bound.

    ``bound`` holds for all inputs; where there is none, ``bound_in_box`` is for images with pixels in [-1, 1].
    """
    start, result = time.process_time(), dict[str, Any](refusal=None)
    for kind, box in (("bound", {}), ("bound_in_box", {"low": -1, "high": 1})):
        try:
            result[kind] = product_bound(model, x, torus=True, **box)
            result["slope"] = slope(model, 0.9 * x)
            break
        except ValueError as error:
            result[kind], result["refusal"] = None, str(error)[:300]
    return result | {"bound_seconds": round(time.process_time() - start, 2)}


# ---- all of them ---------------------------------------------------------------------------------------------------
def names() -> dict[str, tuple[int, ...]]:
    """Return the names of the networks and the shapes of their inputs."""
    lines = [line.split() for line in NAMES.read_text("utf-8").splitlines() if not line.startswith("#")]
    return {name: tuple(map(int, shape.split("x"))) for name, shape in lines}


def _work(sender: Connection, make: Callable[[], nn.Module], shape: Sequence[int], limit: int, memory: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30), int(memory * 2**30)))
    torch.set_num_threads(1)
    try:
        model, x = make(), torch.rand(*shape, generator=torch.Generator().manual_seed(1))
        sender.send(audit(model, x))
        sender.send(bounded(model, x))
    except Exception as error:  # whatever a network may raise is its result
        sender.send({"error": f"{type(error).__name__}: {str(error)[:300]}"})


def in_a_process(make: Callable[[], nn.Module], shape: Sequence[int], limit: int, memory: float) -> dict[str, Any]:
    """Return ``audit`` and ``bounded`` of a network that ``make`` builds, or why its process ended early."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, make, shape, limit, memory))
    process.start()
    sender.close()
    early = f"not done after {limit} seconds and with {memory:g} GiB"
    result: dict[str, Any] = {"error": early}
    try:
        result = receiver.recv()
        result |= {"bound": None, "refusal": early} | receiver.recv()
    except EOFError:
        result |= {} if "error" in result else {"bound": None, "refusal": early}
    process.join()
    return result


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the counts of the table: networks that are audited whole, bounded, and on which a check failed."""
    read = [line for line in lines if "error" not in line]
    whole = [line for line in read if not line["forgotten"]]
    running = [[reason for _, reason in line["missing"] if "does not reach" not in reason] for line in whole]
    return {
        "networks": len(lines),
        "without anything missing": sum(not line["missing"] for line in whole),
        "with weights that do not run": sum(
            bool(line["missing"]) and not ran for line, ran in zip(whole, running, strict=True)
        ),
        "with weights that run and are named": sum(map(bool, running)),
        "not whole": len(lines) - len(whole),
        "bounded": sum(line["bound"] is not None for line in read),
        "bounded on images in [-1, 1] only": sum(line.get("bound_in_box") is not None for line in read),
        "unsound": sum((line["greatest"] or 0) > 1 + 1e-5 or line.get("slope", 0) > _bound(line) for line in read),
    }


def _bound(line: Mapping[str, Any]) -> float:
    found = [line[kind] for kind in ("bound", "bound_in_box") if line.get(kind) is not None]
    return found[0] if found else math.inf


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, help="file of one JSON object per network; those in it are not run again")
    parser.add_argument("--table", type=Path, help="file that gets the table of all lines")
    parser.add_argument("--only", default="*", help="networks to run, such as 'timm/resnet*'")
    parser.add_argument("--limit", type=int, default=300, help="seconds of computation per network")
    parser.add_argument("--memory", type=float, default=12, help="GiB per network")
    options = parser.parse_args(arguments)
    for library in LIBRARIES:
        import_module(library.replace("-", "_"))  # once, for all processes
    options.lines.touch()
    lines = {line["name"]: line for line in map(json.loads, options.lines.read_text("utf-8").splitlines())}
    for name, shape in names().items():
        if name in lines or not fnmatch.fnmatch(name, options.only):
            continue
        found = in_a_process(lambda name=name: build(name), shape, options.limit, options.memory)
        lines[name] = {"name": name, "input": shape, **found}
        with options.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(lines[name]) + "\n")
        said = ("error", "rows", "unnamed", "missing", "bound", "bound_in_box", "refusal")
        print(name, {key: found[key] for key in said if found.get(key)}, flush=True)
    if options.table:
        content = {
            "command": f"python {' '.join(sys.argv[:1])} LINES --table TABLE",
            "versions": versions(torch.device("cpu")) | {name: metadata.version(name) for name in LIBRARIES},
            "device": "cpu",
            "summary": summary(list(lines.values())),
            "rows": [lines[name] for name in names() if name in lines],
        }
        options.table.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(content["summary"])


if __name__ == "__main__":
    main()
