"""What is published: complete archives, and a wheel that runs the README in an empty environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import NOTEBOOKS, RESULTS, ROOT
from tests.test_readme import OWN_NETWORK, README, SURPRISE, TRAINING, below, listing, printed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.full,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive: the list of files is that of git"),
]


def run(*command: object, cwd: Path, status: int = 0) -> str:
    """What a command prints; it neither finds this clone nor installs into another place than its own Python."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER", "PIP_PREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words, keep = [str(word) for word in command], subprocess.PIPE
    done = subprocess.run(words, cwd=cwd, env=environment, stdout=keep, stderr=keep, text=True, check=False)
    assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the files of git, as they are now, with a git of its own: building leaves nothing in this clone."""
    folder = tmp_path_factory.mktemp("clone")
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", "--force", cwd=folder)
    run("git", "-c", "user.name=a", "-c", "user.email=a", "commit", "--quiet", "--message", "all", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(clone) -> Path:
    """The wheel, built from the source archive beside it."""
    run(sys.executable, "-m", "build", "--outdir", "dist", cwd=clone)
    (found,) = (clone / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of an environment with the wheel and its kit alone."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "venv", cwd=folder)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pinned = ["--quiet", "--no-compile", "--constraint", ROOT / ".ci" / "constraints.txt"]
    run(python, "-m", "pip", "install", *pinned, f"{wheel}[kit]", cwd=folder)
    yield python
    shutil.rmtree(folder)  # 1.5 GB


def test_the_archives_hold_every_file_of_git_and_an_index_would_take_them(clone, wheel):
    archives = sorted(wheel.parent.iterdir())
    assert [path.suffix for path in archives] == [".whl", ".gz"]
    assert run(sys.executable, "-m", "twine", "check", "--strict", *archives, cwd=clone).count("PASSED") == 2
    assert "match" in run(sys.executable, "-m", "check_manifest", cwd=clone)


def test_the_wheel_has_the_notebooks_without_outputs_and_the_results_that_they_read(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name.removeprefix("convkit/notebooks/"): archive.read(name) for name in archive.namelist()}
        packed = sum(i.compress_size for i in archive.infolist() if i.filename.startswith("convkit/notebooks/"))
    assert packed < 2e6
    for path in NOTEBOOKS:
        stored, found = json.loads(path.read_text(encoding="utf-8")), json.loads(files[path.name])
        for cell in stored["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        assert found == stored
        source = "\n".join("".join(cell["source"]) for cell in found["cells"])
        for name in re.findall(r"results/([\w-]+\.\w+)", source):
            assert files[f"results/{name}"] == (RESULTS / name).read_bytes()
    for path in RESULTS.rglob("*.json"):
        assert files[path.relative_to(RESULTS.parent).as_posix()] == path.read_bytes()
    assert {"LICENSE", "convkit/py.typed", "convkit/data/trained.npz"} <= {*files}
    metadata = next(content.decode() for name, content in files.items() if name.endswith("dist-info/METADATA"))
    for line in ("Version: 0.2.0", "Author: the convkit authors", "License-Expression: MIT AND CC-BY-4.0"):
        assert line in metadata.splitlines()


@pytest.mark.parametrize("place", [SURPRISE, OWN_NETWORK, TRAINING])
def test_listings_of_the_readme_run_with_the_wheel_in_an_empty_environment(python, place, tmp_path):
    where = run(python, "-c", "import convkit; print(convkit.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(python.parents[1])
    text = printed(place, str(python), tmp_path)
    assert text == below(SURPRISE) if place == SURPRISE else text.count("norm") >= listing(place).count("print")
    assert README.count("```python\n") == 3


def test_the_first_notebook_runs_from_the_wheel(python, tmp_path):
    command = python.with_name("convkit" + python.suffix)
    assert run(command, "notebooks", "course", cwd=tmp_path).startswith(f"{len(NOTEBOOKS)} notebooks are in course;")
    code = "from pathlib import Path; from convkit.teaching import execute, read_notebook\n"
    code += f"for cell in execute(read_notebook(Path('course/{NOTEBOOKS[0].name}')), Path('course')).cells:\n"
    code += "    print(*(output.get('text', '') for output in cell.get('outputs', [])))"
    assert "✓" in run(python, "-X", "utf8", "-c", code, cwd=tmp_path)
    (sentence,) = run(command, "lab", cwd=tmp_path, status=1).splitlines()
    assert "needs the repository" in sentence
