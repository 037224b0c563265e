"""The recipes of CONTRIBUTING.md and RECIPES.md, each carried out from a file outside of the package, as it stands."""

import os
import re
import subprocess
import sys

import pytest

from tests import ROOT

TEXT, MORE = ((ROOT / ".github" / f"{name}.md").read_text(encoding="utf-8") for name in ("CONTRIBUTING", "RECIPES"))
RECIPES = dict(re.findall(r"### Add (?:a|an) (\w+)\n.*?```python\n(.*?)```", TEXT, re.DOTALL))
RECIPES |= zip(("table", "weights", "loop"), re.findall(r"```python\n(.*?)```", MORE, re.DOTALL), strict=True)


def test_there_is_a_recipe_for_each_of_these():
    assert list(RECIPES) == ["method", "model", "attack", "panel", "table", "weights", "loop"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_from_a_file_of_ones_own(name, tmp_path):
    pytest.importorskip("safetensors" if name == "weights" else "ipywidgets")
    file = tmp_path / f"my_{name}.py"
    file.write_text(RECIPES[name], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", str(file)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert bool(result.stdout) == (name != "panel")
    assert "the same answers: True" in result.stdout or name != "weights"
