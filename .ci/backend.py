"""The build backend of pyproject.toml: setuptools, with complete archives and with the notebooks in a wheel."""

import json
from fnmatch import fnmatch
from pathlib import Path

from setuptools.build_meta import *  # noqa: F403  (what PEP 517 asks a backend for)
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist


class Archive(sdist):
    """The step that writes the source archive. In a clone setuptools-scm has listed the files of git."""

    def make_distribution(self) -> None:
        if ".ci/backend.py" not in self.filelist.files:  # no git here: all files but those that git would ignore
            lines = Path(".gitignore").read_text(encoding="utf-8").splitlines()
            ignored = [f"*/{line.strip('/')}/*" for line in lines if line and not line.startswith("#")]
            files = [path.as_posix() for path in Path().rglob("*") if path.is_file()]
            self.filelist.extend(file for file in files if not any(fnmatch(f"/{file}/", name) for name in ignored))
            self.filelist.remove_duplicates()
        super().make_distribution()


class BuildWithNotebooks(build_py):
    """The step that gathers the files of a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a clone that is installed in place has its own notebooks
            copy_notebooks(Path("notebooks"), Path(self.build_lib, "convkit", "notebooks"))


def copy_notebooks(source: Path, target: Path) -> None:
    """Copy the notebooks without outputs, and what they read: the stored results."""
    for path in (*source.glob("*.ipynb"), *source.glob("*.md"), source / "LICENSE", *source.glob("results/**/*.*")):
        content = path.read_bytes()
        if path.suffix == ".ipynb":
            notebook = json.loads(content)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    cell |= {"outputs": [], "execution_count": None}
            content = (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
