"""cuSOLVER's batched eigensolver for any size, by ctypes from the library that torch has loaded: XsyevBatched.

torch 2.11 calls it for matrices up to 32 x 32 only, and decomposes larger ones one after the other.
"""

import ctypes
import glob
import os

import torch

TYPES = {torch.float32: 0, torch.float64: 1, torch.complex64: 4, torch.complex128: 5}  # cudaDataType
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}
LIMIT = 16384  # matrices at a time: more than about 32k is refused by the library
_state = {}


def _library():
    if "library" not in _state:
        torch.linalg.eigvalsh(torch.eye(2, device="cuda").expand(2, 2, 2))  # torch loads its libraries now
        here = os.path.dirname(os.path.dirname(torch.__file__))
        names = ["libcusolver.so.12", "libcusolver.so.11", *glob.glob(f"{here}/nvidia/*/lib/libcusolver.so.1?")]
        for name in names:
            try:
                library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise OSError("no libcusolver beside this torch")
        handle, params = ctypes.c_void_p(), ctypes.c_void_p()
        assert library.cusolverDnCreate(ctypes.byref(handle)) == 0
        assert library.cusolverDnCreateParams(ctypes.byref(params)) == 0
        _state.update(library=library, handle=handle, params=params)
    return _state["library"], _state["handle"], _state["params"]


def eig_batched(matrices, vectors=False):
    """Eigenvalues ascending (and eigenvectors) of Hermitian ``(batch, n, n)``. A row-major Hermitian matrix is the
    conjugate of the column-major one: same values, conjugate vectors, which lie in the rows of what comes back."""
    library, handle, params = _library()
    A = matrices.contiguous().clone()
    batch, n, _ = A.shape
    kind = TYPES[A.dtype]
    real = REAL.get(A.dtype, A.dtype)
    W = torch.empty(batch, n, dtype=real, device=A.device)
    info = torch.empty(batch, dtype=torch.int32, device=A.device)
    assert library.cusolverDnSetStream(handle, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)) == 0
    i64, size, ptr = ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
    upper = 1  # CUBLAS_FILL_MODE_UPPER: complex64 with LOWER was reported to fail now and then (CUDA.jl #2577)
    head = (handle, params, ctypes.c_int(int(vectors)), ctypes.c_int(upper), i64(n))
    for start in range(0, batch, LIMIT):
        part, values, codes = A[start : start + LIMIT], W[start : start + LIMIT], info[start : start + LIMIT]
        args = (
            *head,
            ctypes.c_int(kind),
            ptr(part.data_ptr()),
            i64(n),
            ctypes.c_int(TYPES[real]),
            ptr(values.data_ptr()),
        )
        on_device, on_host = size(), size()
        code = library.cusolverDnXsyevBatched_bufferSize(
            *args, ctypes.c_int(kind), ctypes.byref(on_device), ctypes.byref(on_host), i64(len(part))
        )
        assert code == 0, f"bufferSize: status {code}"
        work = torch.empty(max(1, on_device.value), dtype=torch.uint8, device=A.device)
        host = (ctypes.c_char * max(1, on_host.value))()
        code = library.cusolverDnXsyevBatched(
            *args,
            ctypes.c_int(kind),
            ptr(work.data_ptr()),
            on_device,
            host,
            on_host,
            ptr(codes.data_ptr()),
            i64(len(part)),
        )
        assert code == 0, f"XsyevBatched: status {code}"
    return (W, A.mT.conj() if A.is_complex() else A.mT, info) if vectors else (W, info)
