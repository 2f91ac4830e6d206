"""The reader of optimised programs, on small texts and on programs that are known by hand."""

import jax
import jax.numpy as jnp
import pytest

from psrjax.benchmarks import compiled_program, flops
from psrjax.ops import geometry

LOOP = """
HloModule jit_f, is_scheduled=true

%slice_fusion (p0: f32[5,1024], p1: s32[], p2: f32[1024]) -> f32[5,1024] {
  %p0 = f32[5,1024]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %p2 = f32[1024]{0} parameter(2)
  %negate.1 = f32[1024]{0} negate(%p2)
  %bitcast.1 = f32[1,1024]{1,0} bitcast(%negate.1)
  ROOT %update.1 = f32[5,1024]{1,0} dynamic-update-slice(%p0, %bitcast.1, %p1, %zero)
}

%condition (c: (s32[], f32[5,1024], f32[1024])) -> pred[] {
  %c = (s32[], f32[5,1024]{1,0}, f32[1024]{0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %five), direction=LT
}

%body (b: (s32[], f32[5,1024], f32[1024])) -> (s32[], f32[5,1024], f32[1024]) {
  %b = (s32[], f32[5,1024]{1,0}, /*index=2*/f32[1024]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%b), index=0
  %all = f32[5,1024]{1,0} get-tuple-element(%b), index=1
  %row = f32[1024]{0} get-tuple-element(%b), index=2
  %fusion.1 = f32[5,1024]{1,0} fusion(%all, %i.1, %row), kind=kLoop, calls=%slice_fusion
  ROOT %out = (s32[], f32[5,1024]{1,0}, f32[1024]{0}) tuple(%i.1, %fusion.1, %row)
}

ENTRY %main (x: f32[5,1024], y: f32[1024]) -> (s32[], f32[5,1024], f32[1024]) {
  %x = f32[5,1024]{1,0} parameter(0)
  %y = f32[1024]{0} parameter(1)
  %start = s32[] constant(0)
  %tuple.1 = (s32[], f32[5,1024]{1,0}, f32[1024]{0}) tuple(%start, %x, %y)
  ROOT %while.1 = (s32[], f32[5,1024], f32[1024]) while(%tuple.1), condition=%condition, body=%body
}
"""


def test_a_loop_counts_as_often_as_it_runs_and_a_slice_as_a_slice():
    program = compiled_program.read(LOOP)
    (fusion,) = program.operations
    assert fusion.times == 5
    index, row = 4, 4 * 1024
    assert program.bytes == 5 * (index + row + row)  # the row is read, and written in place


def test_a_fusion_within_a_fusion_writes_in_place_too():
    inner, rest = LOOP.split("\n\n%condition")
    outer = """
%outer_fusion (q0: f32[5,1024], q1: s32[], q2: f32[1024]) -> f32[5,1024] {
  %q0 = f32[5,1024]{1,0} parameter(0)
  %q1 = s32[] parameter(1)
  %q2 = f32[1024]{0} parameter(2)
  ROOT %nested = f32[5,1024]{1,0} fusion(%q0, %q1, %q2), kind=kLoop, calls=%slice_fusion
}
"""
    nested = f"{inner}\n{outer}\n%condition{rest.replace('%slice_fusion', '%outer_fusion')}"
    assert compiled_program.read(nested).bytes == compiled_program.read(LOOP).bytes


def test_a_loop_runs_as_often_as_xla_says():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    (fusion,) = compiled_program.read(LOOP.replace("body=%body", known)).operations
    assert fusion.times == 7


def entry(*lines, before=""):
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule m\n\n{before}\nENTRY %main (p: f32[]) -> f32[] {{\n{body}\n}}\n"


def test_what_lies_in_fast_memory_does_not_count():
    program = compiled_program.read(
        entry(
            "%p = f32[1024]{0:T(1024)} parameter(0)",
            "%copy-start.1 = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) "
            "copy-start(%p)",
            "%copy-done.1 = f32[1024]{0:T(1024)S(1)} copy-done(%copy-start.1)",
            "%add.1 = f32[1024]{0:T(1024)S(1)} add(%copy-done.1, %copy-done.1)",
            "ROOT %negate.1 = f32[1024]{0:T(1024)} negate(%add.1)",
        )
    )
    moved = {each.name: each.bytes for each in program.operations}
    assert moved == {"copy-start.1": 4096, "add.1": 0, "negate.1": 4096}


@pytest.mark.parametrize(
    "line, expected",
    [
        (
            "%a = f32[64]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1},{2,3}}, "
            "to_apply=%add",
            ("all-reduce", 256, 2),
        ),
        (
            "%a = f32[256]{0} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], "
            "dimensions={0}",
            ("all-gather", 1024, 4),
        ),
        (
            "%a = (f32[64]{0}, f32[256]{0}) all-gather-start(%p), channel_id=1, "
            "replica_groups=[1,4]<=[4], dimensions={0}",
            ("all-gather", 1024, 4),
        ),
        (
            "%a = f32[16]{0} reduce-scatter(%p), channel_id=1, replica_groups=mesh['axis_0'=4,"
            "'axis_1'=2] {'axis_0'}, to_apply=%add",
            ("reduce-scatter", 256, 4),
        ),
        (
            "%a = (f32[64]{0}, f32[64]{0}, u32[], u32[]) collective-permute-start(%p), "
            "source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 264, 0),
        ),
    ],
)
def test_collectives_and_how_much_they_exchange(line, expected):
    text = entry("%p = f32[64]{0} parameter(0)", line)
    (found,) = compiled_program.read(text).collectives
    assert (found.kind, found.bytes, found.group) == expected


def test_a_collective_printed_in_two_fusions_counts_once():
    begin, end = (
        f"%{name} (q: f32[64]) -> f32[64] {{\n  %q.{name} = f32[64]{{0}} parameter(0)\n"
        f"  ROOT %reduce.{name} = f32[64]{{0}} all-reduce(%q.{name}), channel_id=3\n}}\n"
        for name in ("begin", "end")
    )
    text = entry(
        "%p = f32[64]{0} parameter(0)",
        "%one = f32[64]{0} fusion(%p), kind=kCustom, calls=%begin",
        "ROOT %two = f32[64]{0} fusion(%one), kind=kCustom, calls=%end",
        before=begin + end,
    )
    assert len(compiled_program.read(text).collectives) == 1


def read_unoptimised(function, *arguments):
    module = jax.jit(function).lower(*arguments).compiler_ir("hlo").as_hlo_module()
    return compiled_program.read(module.to_string())


@pytest.mark.parametrize("stride, kernel, padding", [(1, 3, 1), (2, 3, 1), (2, 4, 1), (1, 1, 0)])
@pytest.mark.parametrize("argument", [None, 0, 1])
def test_flops_of_a_convolution_and_its_gradients_are_those_of_the_formula(
    stride, kernel, padding, argument
):
    x, w = jnp.ones((2, 16, 24, 8)), jnp.ones((kernel, kernel, 8, 5))

    def convolve(x, w):
        pads = [(padding, padding)] * 2
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (stride,) * 2, pads, dimension_numbers=dims)

    y = jax.eval_shape(convolve, x, w)
    run = convolve
    if argument is not None:
        run = jax.grad(lambda *given: convolve(*given).sum(), argument)
    found = read_unoptimised(run, x, w).flops["f32"]
    expected = flops.convolution_flops(w.size, samples=2, inputs=(16, 24), outputs=y.shape[1:3])
    assert found == pytest.approx(expected, rel=0)


def test_flops_without_padding_are_those_of_xlas_own_count():
    x, w = jnp.ones((2, 16, 24, 8)), jnp.ones((3, 3, 8, 5))

    def run(x, w, a, b):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (2, 1), "VALID", dimension_numbers=dims), a @ b

    given = x, w, jnp.ones((7, 32)), jnp.ones((32, 9))
    found = read_unoptimised(run, *given)
    assert sum(found.flops.values()) == jax.jit(run).lower(*given).cost_analysis()["flops"]


def test_products_are_told_apart_by_type_and_precision():
    a = jnp.ones((4, 8))

    def run(a):
        exact = jax.lax.dot(a, a.T, precision="highest")
        return exact, a @ a.T, a.astype(jnp.bfloat16) @ a.T.astype(jnp.bfloat16)

    product = 2 * 4 * 4 * 8
    expected = {"f32 highest": product, "f32": product, "bf16": product}
    assert dict(read_unoptimised(run, a).flops) == expected


CUDNN = (
    "%c = ({result}, u8[0]{{0}}) custom-call(%x, %w), window={{size=3x3 pad=1_1x1_1}}, "
    'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"'
)


@pytest.mark.parametrize(
    "kind, x, w, result",
    [
        ("Forward", "bf16[2,16,16,8]", "bf16[5,3,3,8]", "bf16[2,16,16,5]"),
        ("BackwardInput", "bf16[2,16,16,5]", "bf16[5,3,3,8]", "bf16[2,16,16,8]"),
        ("BackwardFilter", "bf16[2,16,16,8]", "bf16[2,16,16,5]", "bf16[5,3,3,8]"),
    ],
)
def test_flops_of_cudnn_calls(kind, x, w, result):
    text = entry(
        f"%x = {x}{{3,2,1,0}} parameter(0)",
        f"%w = {w}{{3,2,1,0}} parameter(1)",
        CUDNN.format(kind=kind, result=f"{result}{{3,2,1,0}}"),
    )
    expected = 2 * (2 * 16 * 16 * 5) * (3 * 3 * 8)
    assert dict(compiled_program.read(text).flops) == {"bf16": expected}


def test_operations_name_their_place_in_the_source():
    image, flow = jnp.ones((1, 8, 8, 4)), jnp.zeros((1, 8, 8, 2))
    text = jax.jit(geometry.warp).lower(image, flow).compile().as_text()
    places = {each.place for each in compiled_program.read(text).operations}
    assert any(place.startswith("psrjax/ops/geometry.py:") for place in places)


def test_bytes_of_an_elementwise_program():
    x = jnp.ones((256, 256))
    text = jax.jit(lambda x: x * 2 + 1).lower(x).compile().as_text()
    assert compiled_program.read(text).bytes == 2 * x.nbytes


def test_bytes_of_arrays():
    shape = "(f32[8,128]{1,0:T(8,128)S(1)}, pred[], bf16[3])"
    assert compiled_program.array_bytes(shape) == 4 * 8 * 128 + 1 + 6
    assert compiled_program.stored_bytes(shape) == 1 + 6  # S(1) is not main memory


@pytest.mark.parametrize(
    "shape, elements",
    [
        ("f32[2,8,128]{2,1,0:T(8,128)}", 2 * 8 * 128),
        ("f32[2,7,100]{2,1,0:T(8,128)}", 2 * 8 * 128),
        ("f32[7,100,3]{1,0,2:T(8,128)}", 3 * 8 * 128),  # the last axis is the outermost
        ("f32[3,100,7,10,3]{4,3,2,1,0:T(8,128)}", 3 * 100 * 7 * 16 * 128),
        ("f32[5]{0:T(128)}", 128),
        ("f32[7,100]{1,0}", 700),
    ],
)
def test_tiles_are_stored_whole(shape, elements):
    assert compiled_program.stored_bytes(shape) == 4 * elements


def test_memory_by_use():
    text = """BufferAssignment:
allocation 0: size 512, thread-local:
 value: <2 add @0> (size=512,offset=0): f32[]
allocation 1: size 1000, parameter 1, shape |f32[250]| at ShapeIndex {}:
allocation 2: size 200, parameter 0, shape |f32[50]| at ShapeIndex {}, maybe-live-out:
allocation 3: size 30, output shape is |f32[]|, maybe-live-out:
allocation 4: size 4, constant:
allocation 5: size 5000, preallocated-temp:
 value: <35 lt @0> (size=512,offset=4000): pred[]
allocation 6: size 70000, color 1, preallocated-temp:
"""
    assert compiled_program.memory(text) == {
        "arguments": 1000,
        "donated": 200,
        "outputs": 30,
        "constants": 4,
        "temporaries": 5000,
    }
