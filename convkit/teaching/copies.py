"""The notebooks and the results that they read, copied to a folder: whole, or without solutions for a class."""

import json
import re
import shutil
from pathlib import Path

from convkit.loading import ROOT

SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>.*?</details>\s*", re.DOTALL)


def copy_notebooks(folder: str | Path) -> list[Path]:
    """Copy all notebooks and the stored results that they read, and return the paths of the copied notebooks.

    They come from the clone, or from the package where it was installed without one; those of a package have no
    outputs yet. Raises ``FileExistsError`` where ``folder`` has files in it, and ``OSError`` where it cannot be
    written.

    >>> import tempfile
    >>> [path.name for path in copy_notebooks(tempfile.mkdtemp())][:2]
    ['00_start_here.ipynb', '01_a_convolution_is_a_matrix.ipynb']
    """
    folder, packaged = Path(folder), ROOT / "convkit" / "notebooks"
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"the notebooks need a new or empty folder, and {folder} has files in it; name another")
    source = packaged if packaged.exists() else ROOT / "notebooks"
    aside = shutil.ignore_patterns(".*", "*.part", "__pycache__")
    shutil.copytree(source, folder, ignore=aside, dirs_exist_ok=True)
    return sorted(folder.glob("*.ipynb"))


def write_handout(folder: str | Path) -> list[Path]:
    """Copy all notebooks as a class gets them: with blanks, without solutions and stored outputs; return their paths.

    Each exercise keeps its blank and its judge, which lies in the library: students see whether an answer is right, and
    hints. What they run draws its own pictures. Raises ``FileExistsError`` where ``folder`` has files in it, and
    ``OSError`` where it cannot be written.

    >>> import tempfile
    >>> path = write_handout(tempfile.mkdtemp())[2]
    >>> path.name, "Solution" in path.read_text(encoding="utf-8")
    ('02_singular_values_by_fft.ipynb', False)
    """
    paths = copy_notebooks(folder)
    for path in paths:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = []
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
            else:
                source = "".join(cell["source"])
                cell["source"] = SOLUTION.sub("", source)
                if source and not cell["source"].strip():
                    continue  # nothing but a solution stood here
            cells.append(cell)
        path.write_text(json.dumps(notebook | {"cells": cells}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths
