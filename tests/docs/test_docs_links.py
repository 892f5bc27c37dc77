"""Links between the pages lead somewhere, and what the index lists is what there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import check_docs  # noqa: E402


@pytest.mark.parametrize("page", check_docs.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path) -> None:
    assert check_docs.problems(page) == []


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `--thing` (of two)\n\n# Same\n\n# Same\n\n"
        "[good](page.md#one---thing-of-two) [good](#same-1) [elsewhere](https://example.org/x)\n"
        "[bad](#same-2) [bad](other.md) ![bad](none.svg) `[code](nowhere.md)`\n\n"
        "```\n[code](nowhere.md)\n```\n\n    [bad](far.md)\n"
    )
    assert [line.partition(":")[2] for line in check_docs.problems(page)] == [
        "8: page.md has no heading #same-2",
        "8: there is no none.svg",
        "8: there is no other.md",
        "10: a code block without a language",
        "14: there is no far.md",
    ]


def test_every_page_is_in_the_index_and_in_the_site() -> None:
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\(([\w/.-]+\.md)\)", (docs / "index.md").read_text())) == pages
    assert set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text())) == pages | {"index.md"}


def test_every_picture_is_shown_and_fetches_nothing() -> None:
    chapters = "".join(page.read_text() for page in (ROOT / "docs/learn").glob("*.md"))
    pictures = sorted((ROOT / "docs/learn/pictures").iterdir())
    assert [f"pictures/{picture.name}" for picture in pictures] == sorted(
        set(re.findall(r"\((pictures/\S+)\)", chapters))
    )
    for picture in pictures:
        text = picture.read_text()
        assert "prefers-color-scheme: dark" in text
        assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}


def test_the_reference_speaks_of_modules_that_there_are() -> None:
    for page in (ROOT / "docs/reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M):
            path = ROOT / name.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name
