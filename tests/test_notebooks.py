"""The notebooks of examples/ run from the first cell to the last, and are small."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


def test_the_notebooks_are_complete_and_small() -> None:
    assert NOTEBOOKS == ["first-hour.ipynb", "sharpness-of-a-timm-model.ipynb"]
    for name in NOTEBOOKS:
        notebook = nbformat.read(EXAMPLES / name, as_version=4)
        nbformat.validate(notebook)
        assert (EXAMPLES / name).stat().st_size <= 100_000, f"{name}: remove outputs"
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
        assert str(EXAMPLES.parent) not in str(notebook)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's event loop
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path):
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in results)
