"""The documentation site: every page and public name, built without warnings, nothing loaded from other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import noiseless

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "mkdocs.yml").read_text()


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"^ +- (?:[^\n]*: )?(\S+\.md)$", CONFIG, re.MULTILINE)
    assert sorted(listed) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    )


def test_no_page_is_long() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        assert len(path.read_text().splitlines()) <= 250, path


def test_the_site_is_built_strictly_and_has_every_public_name(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "mkdocs.yml").write_text(CONFIG.replace("paths: [src]", f"paths: [{(ROOT / 'src').as_posix()}]"))
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    site = tmp_path / "build/site"
    reference = (site / "reference/index.html").read_text()
    assert [name for name in noiseless.__all__ if f'id="noiseless.{name}"' not in reference] == []
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="(?:stylesheet|preconnect)")[^>]*(?:src|href)="?(https?://[^">]+)',
            page.read_text(),
        )
        assert loaded == [], page
