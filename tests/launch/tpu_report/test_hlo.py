"""FLOPs, loops and collectives read from compiled programs whose answers are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from launch.tpu_report import costs, hlo


def parsed(function, *shapes) -> hlo.Program:
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) if isinstance(s, tuple) else s for s in shapes]
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def flops(program: hlo.Program) -> float:
    return costs.program_flops(program)


def test_a_matrix_product():
    assert flops(parsed(lambda a, b: a @ b, (32, 48), (48, 80))) == 2 * 32 * 48 * 80


def test_a_batched_product_over_two_dimensions():
    program = parsed(lambda a, b: jnp.einsum("bcij,bcjk->bik", a, b), (3, 4, 32, 16), (3, 4, 16, 40))
    assert flops(program) == 2 * 3 * 4 * 32 * 16 * 40


def test_a_scanned_product_counts_for_every_layer():
    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    program = parsed(layers, (64, 32), (7, 32, 32))
    assert flops(program) == 7 * 2 * 64 * 32 * 32
    assert [times for _, times in program.loops] == [7]
    xla = jax.jit(layers).lower(*map(jnp.zeros, [(64, 32), (7, 32, 32)])).compile().cost_analysis()
    assert xla["flops"] < 2 * 2 * 64 * 32 * 32 + 64 * 32 * 10  # which is why: XLA counts one layer


def test_backward_through_nested_scans():
    def loss(x, weights):
        def outer(x, w):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=3)[0], None

        return jnp.sum(jax.lax.scan(outer, x, weights)[0])

    program = parsed(jax.grad(loss, argnums=1), (64, 32), (5, 32, 32))
    # Forward, and backward to the weights 15 times and to the input; XLA may drop the last, which nothing needs.
    product = 2 * 64 * 32 * 32
    assert 44 * product <= flops(program) <= 45 * product


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (2, 9)])
def test_a_counted_loop(start, stop):
    program = parsed(lambda x: jax.lax.fori_loop(start, stop, lambda i, x: jnp.sin(x @ x) + i, x), (32, 32))
    assert flops(program) == (stop - start) * 2 * 32**3


def test_a_loop_that_may_end_early_counts_up_to_its_bound():
    def run(x):
        def going(state):
            return (state[0] < 9) & ~jnp.all(state[1] > 1e6)

        return jax.lax.while_loop(going, lambda s: (s[0] + 1, jnp.sin(s[1] @ s[1])), (1, x))[1]

    program = parsed(run, (32, 32))
    assert flops(program) == 8 * 2 * 32**3 and not program.unknown_loops


def test_a_loop_that_was_unrolled_by_two_runs_half_as_often():
    text = """HloModule m

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %x = f32[8]{0} get-tuple-element(%s), index=1
  ROOT %t = (s32[], f32[8]{0}) tuple(%next, %x)
}

%condition (s: (s32[], f32[8])) -> pred[] {
  %s = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %end = s32[] constant(7)
  ROOT %c = pred[] compare(%i, %end), direction=LT
}

ENTRY %main (x: f32[8]) -> (s32[], f32[8]) {
  %x = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[8]{0}) tuple(%zero, %x)
  ROOT %w = (s32[], f32[8]{0}) while(%t), condition=%condition, body=%body
}
"""
    assert hlo.parse(text).loops == [("w", 4)]


def test_a_loop_of_unknown_length_is_named():
    program = parsed(lambda x: jax.lax.while_loop(lambda x: jnp.sum(x) < 1e3, lambda x: x @ x + 1, x), (32, 32))
    assert len(program.unknown_loops) == 1 and flops(program) == 2 * 32**3


CONVOLUTION = """HloModule m

ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {{
  %a = f32[{lhs}]{{0}} parameter(0)
  %b = f32[{rhs}]{{0}} parameter(1)
  ROOT %c = f32[{out}]{{0}} convolution(%a, %b), window={{{window}}}, dim_labels={labels}
}}
"""


def convolution(**parts: str) -> float:
    return flops(hlo.parse(CONVOLUTION.format(**parts)))


def test_an_ordinary_convolution():
    valid = convolution(lhs="2,10,10,3", rhs="3,3,3,8", out="2,8,8,8", window="size=3x3", labels="b01f_01io->b01f")
    assert valid == 2 * 2 * 8 * 8 * 8 * 3 * 3 * 3


def test_padding_is_not_computed():
    padded = convolution(lhs="1,4,1", rhs="3,1,1", out="1,4,1", window="size=3 pad=1_1", labels="b0f_0io->b0f")
    assert padded == 2 * (2 + 3 + 3 + 2)


def test_a_batched_product_written_as_a_dilated_convolution():
    # As XLA for TPU prints 12 heads' scores: the window's only products that meet no hole are those of equal heads.
    scores = convolution(
        lhs="5,12,256,64", rhs="5,12,256,64", out="5,12,256,256",
        window="size=5x12 stride=4x11 lhs_dilate=5x12", labels="01bf_01oi->01bf",
    )  # fmt: skip
    assert scores == 2 * 5 * 12 * 256 * 256 * 64


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (2, 1), "padding": [(1, 1), (0, 2)]},
        {"window_strides": (1, 1), "padding": [(2, 2), (1, 1)], "lhs_dilation": (2, 3)},
        {"window_strides": (1, 2), "padding": [(3, 0), (0, 0)], "rhs_dilation": (2, 1)},
    ],
    ids=["strides", "dilated input", "dilated kernel"],
)
def test_convolutions_against_xlas_own_count(options):
    dims = ("NHWC", "HWIO", "NHWC")
    lowered = jax.jit(lambda a, b: jax.lax.conv_general_dilated(a, b, dimension_numbers=dims, **options)).lower(
        jnp.zeros((2, 9, 11, 4)), jnp.zeros((3, 3, 4, 6))
    )
    text = lowered.compiler_ir("hlo").as_hlo_text()
    # The text before compilation, as the CPU's compiler replaces convolutions by calls.
    text = text.replace("ENTRY main", "ENTRY %main (x: f32[]) -> f32[]")
    instructions = {}
    for line in text.splitlines():
        instruction = hlo._instruction(line)
        if instruction is not None:
            operands = tuple(w for w in instruction.text[1:].split(")")[0].split(", "))
            instructions[instruction.name] = hlo.Instruction(
                instruction.name, instruction.opcode, instruction.result, operands, instruction.text
            )
    found = next(i for i in instructions.values() if i.opcode == "convolution")
    computation = hlo.Computation("main", instructions)
    assert costs.convolution_flops(computation, found) == lowered.cost_analysis()["flops"]


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)


def collectives_of(function, mesh, in_specs, out_specs, *shapes, slice_of=()):
    placed = [
        jax.ShapeDtypeStruct(s, jnp.float32, sharding=NamedSharding(mesh, spec)) for s, spec in zip(shapes, in_specs)
    ]
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return costs.collectives(parsed(mapped, *placed), slice_of)


def test_an_all_reduce_in_a_loop_counts_every_time(mesh):
    def run(x):
        return jax.lax.fori_loop(0, 5, lambda i, x: jnp.sin(jax.lax.psum(x, "b")), x)

    (found,) = collectives_of(run, mesh, (P("a", "b"),), P("a", "b"), (16, 64))
    assert (found.kind, found.times, found.size) == ("all-reduce", 5, 4)
    assert found.bytes == 8 * 16 * 4
    assert found.ici_bytes == 2 * 3 / 4 * found.bytes


@pytest.mark.parametrize(
    ("kind", "function", "bytes_", "sent"),
    [
        ("all-gather", lambda x: jax.lax.all_gather(x, "b", axis=1, tiled=True), 8 * 64 * 4, 3 / 4),
        ("reduce-scatter", lambda x: jax.lax.psum_scatter(x, "b", scatter_dimension=0, tiled=True), 8 * 16 * 4, 3 / 4),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "b", 0, 1, tiled=True), 8 * 16 * 4, 3 / 4),
        ("collective-permute", lambda x: jax.lax.ppermute(x, "b", [(i, (i + 1) % 4) for i in range(4)]), 8 * 16 * 4, 1),
    ],
)
def test_bytes_of_each_kind(mesh, kind, function, bytes_, sent):
    out = {"all-gather": P("a", None), "reduce-scatter": P(("a", "b"), None)}.get(kind, P("a", "b"))
    (found,) = collectives_of(function, mesh, (P("a", "b"),), out, (16, 64))
    assert (found.kind, found.times, found.bytes) == (kind, 1, bytes_)
    assert found.ici_bytes == pytest.approx(sent * bytes_)


def test_groups_across_slices(mesh):
    # Devices 0-3 in one slice, 4-7 in the other: axis a crosses, axis b does not.
    slice_of = [0, 0, 0, 0, 1, 1, 1, 1]
    within, across, whole = (
        collectives_of(lambda x, n=names: jax.lax.psum(x, n), mesh, (P("a", "b"),), P("a", "b"), (16, 64), slice_of=slice_of)[0]
        for names in ("b", "a", ("a", "b"))
    )  # fmt: skip
    assert (within.slices, across.slices, whole.slices) == (1, 2, 2)
    assert within.dcn_bytes == 0 and across.ici_bytes == 0
    assert across.dcn_bytes == across.bytes  # 2 (s - 1) / s of it
    assert whole.dcn_bytes == whole.bytes / 4 and whole.ici_bytes == 2 * 3 / 4 * whole.bytes


def test_a_transfer_between_slices_is_a_send_to_the_host():
    text = """HloModule m

ENTRY %main (x: f32[6,8]) -> f32[6,8] {
  %x = f32[6,8]{1,0} parameter(0)
  %a = token[] after-all()
  %s = (f32[6,8]{1,0}, u32[], token[]) send(%x, %a), channel_id=4, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2,5:6}x{0:255}",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %y = f32[6,8]{1,0} negate(%x)
}
"""
    (found,) = costs.collectives(hlo.parse(text))
    assert (found.kind, found.size, found.slices, found.bytes) == ("all-reduce", 4, 4, 192)
    assert found.ici_bytes == 0 and found.dcn_bytes == 2 * 3 / 4 * 192


def test_one_channel_printed_twice_is_one_collective():
    text = """HloModule m

%wrapped (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} all-reduce(%p), channel_id=3, replica_groups={{0,1}}, to_apply=%add
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %s = f32[8]{0} fusion(%x), kind=kCustom, calls=%wrapped
  ROOT %t = f32[8]{0} fusion(%s), kind=kCustom, calls=%wrapped
}
"""
    (found,) = costs.collectives(hlo.parse(text))
    assert found.times == 2 and found.bytes == 32 and not found.hidden


def test_a_collective_that_steps_on_in_a_loop_is_one():
    text = """HloModule m

%async_collective_fusion.1 (p: f32[8]) -> f32[16] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[16]{0} all-gather(%p), channel_id=3, replica_groups={{0,1}}, dimensions={0}
}

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%s), index=1
  %step = f32[16]{0} fusion(%x), kind=kCustom, calls=%async_collective_fusion.1
  ROOT %t = (s32[], f32[8]{0}) tuple(%s, %x)
}

%cond (s.1: (s32[], f32[8])) -> pred[] {
  ROOT %s.1 = (s32[], f32[8]{0}) parameter(0)
}

%wrapped_start (p.1: f32[8]) -> f32[16] {
  %p.1 = f32[8]{0} parameter(0)
  ROOT %r.1 = f32[16]{0} all-gather(%p.1), channel_id=3, replica_groups={{0,1}}, dimensions={0}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = f32[16]{0} fusion(%a), kind=kCustom, calls=%wrapped_start
  %state = (s32[], f32[8]{0}) tuple(%zero, %a)
  %w = (s32[], f32[8]{0}) while(%state), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  ROOT %out = f32[8]{0} get-tuple-element(%w), index=1
}
"""
    (found,) = costs.collectives(hlo.parse(text))
    assert (found.times, found.bytes, found.hidden) == (1, 64, True)


def test_a_reduce_scatter_written_as_a_sum_and_a_slice_is_not_hidden():
    text = """HloModule m

%all-reduce-scatter.1 (p: f32[8]) -> f32[4] {
  %p = f32[8]{0} parameter(0)
  %r = f32[8]{0} all-reduce(%p), channel_id=3, replica_groups={{0,1}}, to_apply=%add
  ROOT %s = f32[4]{0} slice(%r), slice={[0:4]}
}

ENTRY %main (x: f32[8]) -> f32[4] {
  %x = f32[8]{0} parameter(0)
  ROOT %f = f32[4]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    (found,) = costs.collectives(hlo.parse(text))
    assert (found.kind, found.bytes, found.hidden) == ("reduce-scatter", 32, False)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x=1", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}, x", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=3], device_ids=([3,2]T(1,0)) {'a'}, x", [[0, 1], [2, 3], [4, 5]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=3], device_ids=([3,2]T(1,0)) {'c'}, x", [[0, 2, 4], [1, 3, 5]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}, x", [[3, 2], [1, 0]]),
        ("no groups", []),
    ],
)
def test_device_groups(text, groups):
    assert costs.replica_groups(text) == groups


def test_groups_in_an_unknown_form_are_an_error():
    with pytest.raises(ValueError, match="unknown form: replica_groups=<something>"):
        costs.replica_groups("replica_groups=<something>, x")


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse("nothing")


def test_types_of_a_tuple():
    found = hlo.arrays("(s32[]{:T(128)}, /*index=1*/f8e4m3fn[2,3]{1,0}, pred[7])")
    assert [(a.dtype, a.shape, a.bytes) for a in found] == [("s32", (), 4), ("f8e4m3fn", (2, 3), 6), ("pred", (7,), 7)]
    assert np.dtype("float32").itemsize == hlo.BYTES["f32"]
