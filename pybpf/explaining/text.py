"""Stories as text, for a terminal or a file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.explaining.story import CallStory, FieldStory

LONGEST_VALUE = 44
"""A longer value does not push the meanings of the others to the right."""
LOG_LINES = 100
"""How many lines of a log are told, from its end. (The report of newer kernels alone has some forty.)"""


def lines(story: CallStory) -> Iterator[str]:
    """One call:

    #3 bpf(BPF_MAP_CREATE): make a map (Linux 3.18)
         map_type     BPF_MAP_TYPE_RINGBUF  what kind of map (Linux 5.8)
         ...
       = 7: map "events" (ringbuf), 12 us
    """
    since = f" (Linux {story.since})" if story.since else ""
    yield (
        f"#{story.number} {story.title}: {story.purpose}{since}" if story.purpose else f"#{story.number} {story.title}"
    )
    inputs = [field for field in story.fields if not field.is_output]
    outputs = [field for field in story.fields if field.is_output]
    name_width = max((len(field.name) for field in story.fields), default=0)
    width = max((len(field.text) for field in story.fields if len(field.text) <= LONGEST_VALUE), default=0)
    for field in inputs:
        yield f"     {_field(field, name_width, width)}"
    for line in story.instructions:
        yield f"       {line}"
    yield f"   = {outcome(story)}, {duration(story)}"
    for field in outputs:
        yield f"     {_field(field, name_width, width)}"
    if story.log:
        yield "     the log says:"
        for line in story.log.rstrip().splitlines()[-LOG_LINES:]:
            yield f"       {line}"


def _field(field: FieldStory, name_width: int, width: int) -> str:
    since = f" (Linux {field.since})" if field.since else ""
    return f"{field.name:{name_width}}  {field.text:{width}}  {field.meaning}{since}".rstrip()


def outcome(story: CallStory) -> str:
    """``7: map "events" (ringbuf)``; ``-1 EACCES: Permission denied``."""
    if story.errno:
        text = f"-1 {story.errno_name}: {story.errno_text}"
    elif story.made:
        text = f"{story.result}: {story.made}"
    else:
        text = str(story.result)
    return text


def duration(story: CallStory) -> str:
    """``12 us``; ``invented`` when the kernel was not asked."""
    return "invented" if story.answered else f"{story.microseconds:,.0f} us"
