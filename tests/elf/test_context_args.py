"""Functions tagged ``arg:ctx`` on kernels that do not know the tag."""

from __future__ import annotations

from struct import iter_unpack

import pytest
from object_builder import TARGETS, ObjectBuilder

import pybpf
from pybpf.btf.kinds import KIND_FUNC, DeclTag, Func, FuncProto, Ptr, Struct
from pybpf.btf.reader import BTF
from pybpf.elf.context_args import fix_context_args
from pybpf.elf.datasec import kernel_btf
from pybpf.elf.linking import link

SOURCE = "load_context_args.bpf.c"


def params(btf: BTF, func_id: int) -> list[str]:
    """The parameters' types of a function: the names of structs that they point to, "" for any other."""
    func = btf.type(func_id)
    assert isinstance(func, Func)
    proto = btf.type(func.type_id)
    assert isinstance(proto, FuncProto)
    names = []
    for param in proto.params:
        pointer = btf.resolve(param.type_id)
        target = btf.resolve(pointer.type_id) if isinstance(pointer, Ptr) else None
        names.append(target.name if isinstance(target, Struct) else "")
    return names


@pytest.mark.parametrize("byte_order", TARGETS)
def test_twins_have_the_type_of_the_context(byte_order: str, build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build(SOURCE, byte_order=byte_order))
    assert spec.btf is not None
    data = kernel_btf(spec)
    before = BTF.from_bytes(data)
    images = {name: link(spec, program, {}) for name, program in spec.programs.items()}
    fixed, changed = fix_context_args(data, [(spec.programs[name], image) for name, image in images.items()])
    btf = BTF.from_bytes(fixed)
    assert [str(btf.type(id)) for id in range(1, len(before))] == [str(one) for one in before.types()]
    found = {}
    for program, ids in changed.items():
        [(original, twin)] = ids.items()
        assert original < len(before) <= twin
        assert btf.name_of(original) == btf.name_of(twin)
        tags = [one for one in btf.types() if isinstance(one, DeclTag) and one.type_id == twin]
        assert [tag.name for tag in tags] == ["arg:ctx"]
        assert not any(params(btf, original))
        found[program] = (btf.name_of(twin), params(btf, twin), twin)
    assert {name: (function, kinds) for name, (function, kinds, _) in found.items()} == {
        "socket_program": ("get_byte", ["", "__sk_buff"]),
        "tc_program": ("get_byte", ["", "__sk_buff"]),
        "probe_program": ("stack_of_probe", ["bpf_user_pt_regs_t"]),
        "tracepoint_program": ("stack_of_tracepoint", ["bpf_raw_tracepoint_args"]),
    }
    assert found["socket_program"][2] == found["tc_program"][2]  # one twin for one kind of context
    image = images["socket_program"]
    image.rename_functions(changed["socket_program"])
    named = [btf.type(id).id for _, id in iter_unpack("=2I", image.func_info)]
    assert named == [btf.find("socket_program", KIND_FUNC).id, found["socket_program"][2]]


def test_what_cannot_be_meant_stays(build: ObjectBuilder) -> None:
    text = """
    #include "bpf_min.h"
    #define TAG __attribute__((btf_decl_tag("arg:ctx")))
    struct other { int x; };
    struct __sk_buff { int len; };
    __weak __noinline int wrong(struct other *c TAG) { return c != 0; }
    __weak __noinline int right(struct __sk_buff *c TAG) { return c != 0; }
    __weak __noinline int number(__u64 *c TAG) { return c != 0; }
    __weak __noinline int untagged(void *c) { return c != 0; }
    static __noinline int local(void *c TAG) { barrier_var(c); return c != 0; }
    SEC("socket") int p(void *c) { return wrong(c) + right(c) + number(c) + untagged(c) + local(c); }
    SEC("lsm/file_open") int no_name(void *c) { return wrong(c); }
    """
    spec = pybpf.ObjectSpec.from_file(build.compile_text("contexts.c", text))
    data = kernel_btf(spec)
    programs = [(program, link(spec, program, {})) for program in spec.programs.values()]
    assert fix_context_args(data, programs) == (data, {})


def test_objects_without_function_information_stay(build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build(SOURCE))
    data = kernel_btf(spec)
    spec.ext = None
    programs = [(program, link(spec, program, {})) for program in spec.programs.values()]
    assert fix_context_args(data, programs) == (data, {})
