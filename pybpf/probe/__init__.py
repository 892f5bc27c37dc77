"""What this kernel and these privileges can do: asked, not guessed from a version.

    >>> from pybpf import probe
    >>> if probe.has_map_type("ringbuf"):
    ...     print(probe.has_helper("xdp", "fib_lookup").evidence)

Every function gives an `Answer`: yes, no, or "cannot tell", with the call that shows it. Names are those of the
kernel's header without their prefix; members of `pybpf.abi`'s enums and numbers are taken too. Conclusive answers are
kept for the life of the process. Nothing stays loaded or attached.

Older kernels charge what is asked for to RLIMIT_MEMLOCK, which may be lifted for it, as a load does.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.probe.answer import Answer, forget
    from pybpf.probe.btf import has_btf
    from pybpf.probe.commands import has_command
    from pybpf.probe.features import has_feature
    from pybpf.probe.links import has_attach_type, has_link_type
    from pybpf.probe.maps import has_map_type
    from pybpf.probe.programs import has_helper, has_kfunc, has_program_type
    from pybpf.probe.survey import report

_HOMES = {
    "Answer": "answer",
    "forget": "answer",
    "has_attach_type": "links",
    "has_btf": "btf",
    "has_command": "commands",
    "has_feature": "features",
    "has_helper": "programs",
    "has_kfunc": "programs",
    "has_link_type": "links",
    "has_map_type": "maps",
    "has_program_type": "programs",
    "report": "survey",
}

__all__ = [
    "Answer",
    "forget",
    "has_attach_type",
    "has_btf",
    "has_command",
    "has_feature",
    "has_helper",
    "has_kfunc",
    "has_link_type",
    "has_map_type",
    "has_program_type",
    "report",
]


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
