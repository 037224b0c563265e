"""The recipes of CONTRIBUTING.md, each carried out from a file outside of the package, as it stands there."""

import os
import re
import subprocess
import sys

import pytest

from tests import ROOT

TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"### Add (?:a|an) (\w+)\n.*?```python\n(.*?)```", TEXT, re.DOTALL))


def test_there_is_a_recipe_for_each_of_these():
    assert list(RECIPES) == ["method", "model", "attack", "panel"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_from_a_file_of_ones_own(name, tmp_path):
    pytest.importorskip("ipywidgets")
    file = tmp_path / f"my_{name}.py"
    file.write_text(RECIPES[name], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", str(file)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert bool(result.stdout) == (name != "panel")
