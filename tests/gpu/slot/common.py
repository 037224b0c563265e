"""What the parts share: a clock, a file of JSON lines that survives a kill, a budget of seconds."""

import json
import os
import statistics
import time
import traceback

import torch

OUT = os.environ["OUT"]
QUICK = bool(os.environ.get("QUICK"))  # a rehearsal on the CPU's pretended device: tiny sizes
DEVICE = torch.device("cuda")
os.makedirs(OUT, exist_ok=True)


class Part:
    def __init__(self, name, budget):
        self.file, self.end = open(f"{OUT}/{name}.jsonl", "a"), time.time() + budget

    def out_of_time(self):
        return time.time() > self.end

    def write(self, **entry):
        self.file.write(json.dumps(entry, default=str) + "\n")
        self.file.flush()
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in entry.items()), flush=True)

    def time(self, question, case, name, task, rounds=5, limit=3.0, error=None, **more):
        """Median milliseconds of ``task`` after one call unmeasured; few rounds where one takes long."""
        if self.out_of_time():
            return None
        try:
            torch.cuda.synchronize()
            began = time.perf_counter()
            result = task()
            torch.cuda.synchronize()
            first = time.perf_counter() - began
            times = []
            inner = max(1, min(50, int(0.02 / max(first, 1e-6)) if first < 0.02 else 1))
            while len(times) < rounds and (not times or sum(times) * inner < limit):
                began = time.perf_counter()
                for _ in range(inner):
                    task()
                torch.cuda.synchronize()
                times.append((time.perf_counter() - began) / inner)
            wrong = None if error is None else float(error(result))
            self.write(
                question=question,
                case=case,
                name=name,
                ms=statistics.median(times) * 1e3,
                first_ms=first * 1e3,
                spread=(max(times) - min(times)) / statistics.median(times),
                rounds=len(times),
                error=wrong,
                **more,
            )
            return statistics.median(times)
        except Exception as problem:
            self.write(
                question=question,
                case=case,
                name=name,
                failed=f"{type(problem).__name__}: {str(problem)[:300]}",
                where=traceback.format_exc().splitlines()[-3][:160],
            )
            torch.cuda.empty_cache()
            return None
