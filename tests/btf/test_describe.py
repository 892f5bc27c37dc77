"""BTF made of codecs gives codecs that do the same; plain values come back as the same bytes."""

from __future__ import annotations

import json

from c_layouts import PRELUDE, Layout, layouts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf.codec import codec
from pybpf.btf.declarations import Declarations
from pybpf.btf.describe import describe
from pybpf.btf.plain import from_plain, to_plain
from pybpf.btf.reader import BTF
from pybpf.btf.records import to_json


@settings(max_examples=few(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    type=layouts(is_plain=True).filter(lambda layout: "empty" not in layout.features),
    order=st.sampled_from(["little", "big"]),
    noise=st.binary(min_size=60, max_size=60),
)
def test_described_types(type: Layout, order: str, noise: bytes) -> None:
    types = Declarations(order)
    types.type(PRELUDE)
    first = types.codec(types.type(f"typedef {type.shape.declare('t')}; t"))
    data, (number,) = describe(first, byte_order=order)
    again = codec(BTF.from_bytes(data), number)
    assert (again.size, again.c_name) == (first.size, first.c_name)
    value = first.encode(type.value)
    assert again.encode(type.value) == value
    for some in (value, (noise * 50)[: first.size], bytes(first.size)):
        assert to_json(again.decode(some)) == to_json(first.decode(some))
        plain = json.loads(json.dumps(to_plain(first, some)))
        assert from_plain(again, plain) == some
    assert describe(again, byte_order=order)[0] == data
