"""Stories as one page of HTML: no script from elsewhere, no font, no picture; light and dark as the reader's system is.

The page is whole after each call: its head comes first, then one `details` element for each call, and HTML lets the end
tags of body and html be left out. So it can be read while the process still runs, and after a crash.
"""

from __future__ import annotations

from html import escape

from pybpf.explaining.text import duration, outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.explaining.story import CallStory, FieldStory

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2230; --soft: #5b6477; --faint: #8a93a6; --paper: #f6f5f1; --card: #fff;
  --line: #e2dfd6; --accent: #0b6b62; --good: #0a7a3d; --goodbg: #e3f4e8; --bad: #b3261e; --badbg: #fbe5e2;
  --code: #f1efe8; --chip: #ebe8df; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ee; --soft: #a5aec0; --faint: #78829a; --paper: #14171f;
  --card: #1b1f2a; --line: #2b3140; --accent: #5ad1c0; --good: #6fd896; --goodbg: #16301f; --bad: #ff9b90;
  --badbg: #3a1b19; --code: #12151c; --chip: #262c3a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
code, pre, .mono { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
h1 { font-size: 1.7rem; letter-spacing: -.02em; margin: 0 0 .3rem; }
header p { color: var(--soft); margin: 0 0 .2rem; max-width: 46rem; }
#bar { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .4rem; align-items: center;
  margin: 1.4rem -.5rem 1rem; padding: .6rem .5rem; background: var(--paper);
  border-bottom: 1px solid var(--line); }
#bar button { font: inherit; font-size: 13px; color: var(--soft); background: var(--chip);
  border: 1px solid transparent;
  border-radius: 99px; padding: .1rem .7rem; cursor: pointer; }
#bar button:hover { border-color: var(--faint); }
#bar button[aria-pressed=true] { color: var(--card); background: var(--accent); }
#bar .right { margin-left: auto; color: var(--faint); font-size: 13px; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: .5rem 0; }
details[hidden] { display: none; }
summary { display: grid; grid-template-columns: 2.6rem minmax(0, 1fr) auto 4.6rem; gap: .8rem; align-items: baseline;
  padding: .55rem .9rem; cursor: pointer; list-style: none; border-radius: 10px; }
summary::-webkit-details-marker { display: none; }
summary:hover { background: color-mix(in srgb, var(--accent) 6%, transparent); }
summary:focus-visible { outline: 2px solid var(--accent); }
.no { color: var(--faint); text-align: right; font-variant-numeric: tabular-nums; }
.call { font-weight: 600; overflow-wrap: anywhere; }
.purpose { color: var(--soft); margin-left: .6rem; }
.out { border-radius: 99px; padding: 0 .7rem; background: var(--goodbg); color: var(--good); font-size: 13px;
  max-width: 30rem;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.failed .out { background: var(--badbg); color: var(--bad); }
.invented .out { background: var(--chip); color: var(--soft); }
.body { padding: 0 .9rem .9rem 4.3rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
.time { color: var(--faint); font-size: 13px; text-align: right; font-variant-numeric: tabular-nums; }
.subject { color: var(--ink); }
td { padding: .28rem .9rem .28rem 0; vertical-align: top; border-top: 1px solid var(--line); }
tr:first-child td { border-top: 0; }
td.name { width: 13.5rem; overflow-wrap: anywhere; color: var(--accent); }
td.value { overflow-wrap: anywhere; }
td.why { color: var(--soft); width: 40%; }
.since { color: var(--faint); font-size: 12px; white-space: nowrap; }
.since::before { content: "since "; }
tr.written td.name::after { content: " \\2190"; color: var(--faint); }
.foot { color: var(--faint); font-size: 13px; margin: .6rem 0 0; }
pre { background: var(--code); border-radius: 8px; padding: .7rem .9rem; margin: .7rem 0 0; overflow-x: auto;
  max-height: 28rem; }
h2 { font-size: 13px; color: var(--soft); margin: .9rem 0 0; font-weight: 600; }
@media (max-width: 46rem) { body { padding: 1.2rem .8rem 4rem; } .body { padding-left: .9rem;
  } .purpose { display: block;
  margin: 0; } td { display: block; border: 0; padding: 0 0 .1rem; width: auto !important; }
  tr { display: block; padding: .4rem 0; border-top: 1px solid var(--line);
  } summary { grid-template-columns: 1.8rem 1fr; }
  .time { display: none; }
  .out { grid-column: 2; justify-self: start; max-width: 100%; } }
@media print { #bar { display: none; } details { break-inside: avoid; } }
"""

_SCRIPT = """
addEventListener("DOMContentLoaded", () => {
  const calls = [...document.querySelectorAll("details")], bar = document.getElementById("bar"), counts = new Map();
  for (const call of calls) counts.set(call.dataset.kind, (counts.get(call.dataset.kind) || 0) + 1);
  const chosen = new Set();
  const show = () => { for (const call of calls) call.hidden = chosen.size > 0 && !chosen.has(call.dataset.kind); };
  for (const [kind, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const button = document.createElement("button");
    button.textContent = `${kind} ${count}`;
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => {
      if (!chosen.delete(kind)) chosen.add(kind);
      button.setAttribute("aria-pressed", String(chosen.has(kind)));
      show();
    };
    bar.append(button);
  }
  const all = document.createElement("button");
  all.textContent = "open all";
  all.onclick = () => {
    const open = all.textContent === "open all";
    for (const call of calls) call.open = open;
    all.textContent = open ? "close all" : "open all";
  };
  const right = document.createElement("span"), failed = document.querySelectorAll("details.failed").length;
  right.className = "right";
  const time = calls.reduce((sum, call) => sum + Number(call.dataset.time), 0);
  right.textContent = `${calls.length} calls, ${failed} refused, ${(time / 1000).toFixed(1)} ms in the kernel `;
  right.append(all);
  bar.append(right);
});
"""


def head(*, dry_run: bool = False) -> str:
    """The beginning of the page."""
    import os

    system = os.uname()
    if dry_run:
        note = "Nothing of this reached the kernel: it is what would be sent, and the answers are invented."
    else:
        note = f"On Linux {system.release} ({system.machine})."
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>bpf() told in words</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n<script>{_SCRIPT}</script>\n</head>\n<body>\n"
        "<header>\n<h1>bpf() told in words</h1>\n"
        "<p>Every call into the kernel, in order: what it is for, what was handed over, what came back. "
        f"Fields that are 0 are left out. {escape(note)}</p>\n</header>\n"
        '<div id="bar"></div>\n'
    )


def article(story: CallStory) -> str:
    """One call."""
    state = "invented" if story.answered and not story.errno else "failed" if story.errno else "done"
    is_open = " open" if story.errno and not story.answered else ""
    subject = f': <span class="subject">{escape(story.subject)}</span>' if story.subject else ""
    kind = (story.command or story.name).removeprefix("BPF_").removeprefix("PERF_EVENT_")
    return (
        f'<details class="{state}" data-kind="{escape(kind)}" data-time="{story.microseconds:.1f}"{is_open}>'
        f'<summary><span class="no mono">{story.number}</span><span><code class="call">{escape(story.title)}</code>'
        f'<span class="purpose">{escape(story.purpose)}{subject}</span></span>'
        f'<span class="out mono">{escape(outcome(story))}</span>'
        f'<span class="time">{escape(duration(story))}</span></summary>'
        f'<div class="body">{"".join(_body(story))}</div></details>\n'
    )


def _body(story: CallStory) -> Iterator[str]:
    if story.fields:
        yield "<table>" + "".join(map(_row, story.fields)) + "</table>"
    notes = []
    if story.since:
        notes.append(f"The command came with Linux {story.since}.")
    if story.size:
        notes.append(f"{story.size} bytes were handed over.")
    if any(field.is_output for field in story.fields):
        notes.append("An arrow marks what the kernel wrote.")
    if notes:
        yield f'<p class="foot">{escape(" ".join(notes))}</p>'
    if story.instructions:
        yield "<h2>The program</h2><pre>" + escape("\n".join(story.instructions)) + "</pre>"
    if story.log:
        yield "<h2>What the kernel says</h2><pre>" + escape(story.log.rstrip()) + "</pre>"


def _row(field: FieldStory) -> str:
    since = f' <span class="since">Linux {escape(field.since)}</span>' if field.since else ""
    written = ' class="written"' if field.is_output else ""
    return (
        f'<tr{written}><td class="name mono">{escape(field.name)}</td><td class="value mono">{escape(field.text)}</td>'
        f'<td class="why">{escape(field.meaning)}{since}</td></tr>'
    )
