"""Which solver for many Hermitian matrices: torch, cuSOLVER's batched one, CuPy, the host's cores; Cholesky; GEMM."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from common import DEVICE, QUICK, Part

part = Part("eigen", 75)
SIZES = [(8, 16), (4, 40)] if QUICK else [(514, 32), (514, 64), (130, 128), (34, 256), (10, 512), (514, 128)]


def made(F, n, dtype):
    g = torch.Generator().manual_seed(n)
    B = torch.randn(F, n, n, dtype=dtype, generator=g) / n**0.5
    return (B @ B.mH), B


def on_host(G):
    host = G.cpu().numpy()
    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(np.linalg.eigvalsh, np.array_split(host, min(len(host), 64))))
    return torch.from_numpy(np.concatenate(parts)).to(DEVICE)


for F, n in SIZES:
    host, B = made(F, n, torch.complex128)
    truth = torch.from_numpy(np.linalg.eigvalsh(host[:8].numpy()))
    G, B = host.to(DEVICE), B.to(DEVICE)
    case = f"{F} x {n}"

    def off(values):
        values = values[0] if isinstance(values, tuple) else values
        return (values[: len(truth)].cpu().double() - truth).abs().max() / truth.max()

    few = G[:16]  # what goes one by one is timed on 16 and scaled
    part.time(
        "eigenvalues c128",
        case,
        f"torch.linalg.eigvalsh, 16 of {F}",
        lambda: torch.linalg.eigvalsh(few),
        rounds=3,
        error=off,
        scale=F / len(few),
    )
    part.time(
        "singular values c128",
        case,
        f"torch.linalg.svdvals, 16 of {F}",
        lambda: torch.linalg.svdvals(B[:16]),
        rounds=3,
        scale=F / len(few),
    )
    part.time("eigenvalues c128", case, "host, 16 threads, with both copies", lambda: on_host(G), error=off)
    try:
        from cusolver import eig_batched

        part.time("eigenvalues c128", case, "XsyevBatched", lambda: eig_batched(G), error=off)
        part.time("eigenvectors c128", case, "XsyevBatched", lambda: eig_batched(G, True), error=off)
        S = G.to(torch.complex64)
        part.time("eigenvalues c64", case, "XsyevBatched", lambda: eig_batched(S), error=off)
        part.time("eigenvectors c64", case, "XsyevBatched", lambda: eig_batched(S, True), error=off)
        V = eig_batched(G, True)
        residual = (G @ V[1] - V[1] * V[0][:, None]).abs().max()
        part.write(question="XsyevBatched residual", case=case, value=float(residual))
    except Exception as problem:
        part.write(question="XsyevBatched", case=case, failed=str(problem)[:200])
    try:
        import cupy

        C = cupy.from_dlpack(G)
        part.time("eigenvalues c128", case, "cupy.linalg.eigvalsh", lambda: cupy.linalg.eigvalsh(C))
    except Exception as problem:
        part.write(question="cupy", case=case, failed=str(problem)[:120])
    eye = torch.eye(n, dtype=G.dtype, device=DEVICE)
    level = 1.001 * float(truth.max()) * 2
    part.time("Cholesky", case, "cholesky_ex c128", lambda: torch.linalg.cholesky_ex(level * eye - G).info)
    part.time(
        "Cholesky",
        case,
        "cholesky_ex c64",
        lambda: torch.linalg.cholesky_ex((level * eye - G).to(torch.complex64)).info,
    )
    x, y = torch.complex(*(torch.randn(F, n, n, device=DEVICE) for _ in range(2))), G
    for dtype in (torch.complex64, torch.complex128):
        a = x.to(dtype)
        part.time("GEMM", case, f"bmm {dtype}", lambda: a @ a, flop=8 * F * n**3)
    v = torch.randn(F, n, dtype=torch.complex64, device=DEVICE)
    part.time("one Lanczos product c64", case, "(blocks * v).sum(2), as now", lambda: (x * v[:, None]).sum(2))
    part.time("one Lanczos product c64", case, "torch.bmm", lambda: torch.bmm(x, v[..., None]))
    if part.out_of_time():
        break
