#!/bin/bash
# Measures on a GPU for about 8 minutes: bash tests/gpu/slot/slot.sh, from the root of a clone, with OUT set.
# Each part has its own limit and writes as it goes; at most 8 files under $OUT. PARTS="tests eigen" runs some of them.
here=$(cd "$(dirname "$0")" && pwd); root=$(pwd); export OUT=${OUT:?set OUT to an empty folder}; mkdir -p "$OUT"
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONPATH=$root:$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PARTS=${PARTS:-env eigen calls train tests}; log=$OUT/log.txt
part() { case " $PARTS " in *" $1 "*) echo "== $1 at $SECONDS s" | tee -a "$log";; *) return 1;; esac; }
part env && { nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; python3 -c "
import torch, numpy, scipy, sys; print(sys.version.split()[0], torch.__version__, torch.version.cuda, numpy.__version__, scipy.__version__, torch.backends.cuda.preferred_linalg_library(), torch.backends.cudnn.version())
print('tf32: matmul', torch.backends.cuda.matmul.allow_tf32, 'conv', torch.backends.cudnn.allow_tf32)
import convkit; from convkit.operators import ConvOperator; A=ConvOperator(torch.randn(8,8,3,3,device='cuda'),(8,8)); print(convkit.operator_norm(A,2), torch.linalg.matrix_norm(A.matrix(),2))"; } >"$OUT/env.txt" 2>&1
cat "$OUT/env.txt" 2>/dev/null
part eigen && timeout -s INT -k 5 85 python3 "$here/eigen.py" >>"$log" 2>&1
part calls && timeout -s INT -k 5 108 python3 "$here/calls.py" >>"$log" 2>&1
part train && timeout -s INT -k 5 128 python3 "$here/train.py" >>"$log" 2>&1
part tests && { T=$(python3 -c "
from tests.test_architecture import LIBRARY_TESTS as L; import os
more=['tests/%s.py' % n for n in ('training/test_loop','attacks/test_gradient','attacks/test_blackbox','training/test_checkpoint','data/test_augmentation','robustness/test_lipschitz','models/test_networks','attacks/test_evaluation')]
print(*[f for f in dict.fromkeys([*L, *more]) if os.path.exists(f)])"); timeout -s INT -k 10 ${TESTS_LIMIT:-125} python3 -m pytest $T -k cuda -n ${WORKERS:-12} --dist worksteal -q -p xdist -p timeout -p report_plugin -p no:cacheprovider --tb=line -o addopts= >"$OUT/tests.log" 2>&1; tail -n 3 "$OUT/tests.log"; }
python3 - <<'PY'
# a short table of what was found
import collections, json, os
out = os.environ["OUT"]
def lines(name):
    try: return [json.loads(line) for line in open(f"{out}/{name}.jsonl")]
    except FileNotFoundError: return []
for e in lines("eigen") + lines("calls"):
    if "ms" in e: print(f"{e['question'][:34]:34} {e['case'][:24]:24} {e['name'][:40]:40} {e['ms'] * e.get('scale', 1):10.3f} ms" + (f"  error {e['error']:.1e}" if e.get("error") is not None else ""))
    elif "failed" in e: print("FAILED", e)
for e in lines("train"): print(e)
tests = lines("tests"); print(collections.Counter(t["outcome"] for t in tests)); print(*[t["test"] + " " + t.get("why", "")[-160:].replace("\n", " ") for t in tests if t["outcome"] == "failed"][:12], sep="\n")
PY
echo "done at $SECONDS s"
