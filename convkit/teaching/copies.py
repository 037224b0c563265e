"""The notebooks and the results that they read, copied to a folder of the user's."""

import shutil
from pathlib import Path

from convkit.loading import ROOT


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
