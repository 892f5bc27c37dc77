"""Several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_all(*functions: Callable[[], object], patience: float = 300) -> list[BaseException]:
    """Run each in a thread of its own; what they raised. They have so many seconds to end."""
    raised: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience)
        assert not thread.is_alive()
    return raised
