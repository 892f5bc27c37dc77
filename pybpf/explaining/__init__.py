"""bpf(2) told in words: every call that pybpf makes, each field by its name and meaning, and what came back.

| module | what it is about |
|---|---|
| `story` | a call as values: `CallStory`, `FieldStory`; and as JSON |
| `teller` | the observer of the door that makes stories of calls |
| `fields` | the fields of a call: which of them count, and each value in words |
| `meanings` | tables: what each command does, what each field means |
| `descriptors` | what a descriptor is: ``map "events" (ringbuf)`` |
| `history` | which kernel brought what |
| `text`, `page` | stories as text, and as one HTML page |
| `dryrun` | an observer that answers instead of the kernel |
| `session` | `pybpf.explain()` and PYBPF_EXPLAIN |
"""
