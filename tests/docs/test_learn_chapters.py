"""Every block of docs/learn runs as shown, and prints what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from blocks import ROOT, Block, blocks, compare, run, runnable

CHAPTERS = sorted((ROOT / "docs/learn").glob("*.md"))
BLOCKS = [block for page in CHAPTERS for block in runnable(page)]


@pytest.mark.kernel
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(block: Block, tmp_path: Path) -> None:
    run(block, tmp_path)


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_is_short_and_shows_something_that_runs(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 200
    assert runnable(page) or "where" in page.stem


def test_output_that_is_not_what_the_page_shows_fails() -> None:
    compare("a ... c\n...\nlast 3\n", "a b c\none\ntwo\nlast  3\n", numbers_differ=False)
    compare("pid 17, 0xff\n", "pid 4711, 0x0\n", numbers_differ=True)
    for actual in ("pid 4711, 0xff\n", "pid 17, 0xff\nmore\n", ""):
        with pytest.raises(AssertionError):
            compare("pid 17, 0xff\n", actual, numbers_differ=False)


def test_blocks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- needs root -->\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\nWords.\n\n"
        "<!-- not run: it never ends -->\n```console\n$ yes\n```\n"
    )
    first, output, last = blocks(page)
    assert (first.code, first.comments, first.output, first.line) == ("print(1)\n", {"needs": "root"}, output, 3)
    assert (last.comments, last.output, runnable(page)) == ({"not": "run: it never ends"}, None, [first])
