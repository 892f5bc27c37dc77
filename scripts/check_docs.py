"""Read the Markdown of the project: does every relative link lead to a file and a heading, has every block a language?

    python scripts/check_docs.py

Links to other machines are not followed. Anchors are made as GitHub makes them; mkdocs.yml has the site do the same.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_FENCE = re.compile(r"^( *)```(.*)$")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_CODE = re.compile(r"(`+).+?\1")


def pages() -> list[Path]:
    """Every page of the project."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def prose(text: str) -> list[str]:
    """The lines of a page, those of code blocks emptied."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = _FENCE.match(line) is not None
        lines.append("" if inside or fence else line)
        inside ^= fence
    return lines


def blocks_without_language(text: str) -> list[int]:
    """The lines at which a code block begins that names no language."""
    found, inside = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence:
            if not inside and not fence[2].strip():
                found.append(number)
            inside = not inside
    return found


def anchor(heading: str) -> str:
    """The anchor of a heading: lower case, without punctuation, a hyphen for each space."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings. Of equal headings the second ends in -1, and so on."""
    seen: dict[str, int] = {}
    found = set()
    for line in prose(page.read_text()):
        heading = re.match(r"#{1,6} +(.+?) *#*$", line)
        if heading:
            name = anchor(heading[1])
            number = seen[name] = seen.get(name, -1) + 1
            found.add(f"{name}-{number}" if number else name)
    return frozenset(found)


def broken_link(page: Path, target: str) -> str:
    """What is wrong with a link of a page, or nothing."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return ""
    name, _, fragment = target.partition("#")
    file = page if not name else (page.parent / name).resolve()
    if not file.exists():
        return f"there is no {name}"
    if fragment and file.suffix == ".md" and fragment not in anchors(file):
        return f"{name or page.name} has no heading #{fragment}"
    return ""


def problems(page: Path) -> list[str]:
    """What is wrong with a page, a line each."""
    text = page.read_text()
    found = [(number, "a code block without a language") for number in blocks_without_language(text)]
    for number, line in enumerate(prose(text), start=1):
        for target in _LINK.findall(_CODE.sub("", line)):
            wrong = broken_link(page, target)
            if wrong:
                found.append((number, wrong))
    return [
        f"{page.relative_to(ROOT) if ROOT in page.parents else page}:{number}: {what}" for number, what in sorted(found)
    ]


def main() -> int:
    found = [line for page in pages() for line in problems(page)]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
