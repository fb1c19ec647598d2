"""The compiler's clock, read from a program's text whose cycles are known."""

from __future__ import annotations

import pytest

from launch.tpu_report import clock, costs, hlo
from smolrgpt_jax.chips import CHIPS, Chip

# 100 FLOP/s, 10 bytes/s of memory, 5 bytes/s of links, 50 cycles/s.
CHIP = Chip("test", 100.0, 64, 10.0, 5.0, 1.0, "nowhere", (1, 1))
TEXT = """HloModule m

FileNames
1 "model.py"

FunctionNames
1 "step"
2 "DecoderBlock.__call__"
3 "Dense.flat"
4 "Refiner.cells"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=1 function_name_id=2 line=2 end_line=2 column=1 end_column=2}
3 {file_name_id=1 function_name_id=3 line=3 end_line=3 column=1 end_column=2}
4 {file_name_id=1 function_name_id=4 line=4 end_line=4 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=4 parent_frame_id=2}

%product (p: bf16[8,8]) -> f32[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%cast (p.1: f32[8,8]) -> bf16[8,8] {
  %p.1 = f32[8,8]{1,0} parameter(0)
  ROOT %c = bf16[8,8]{1,0} convert(%p.1)
}

%body (s: (s32[], bf16[8,8])) -> (s32[], bf16[8,8]) {
  %s = (s32[], bf16[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = bf16[8,8]{1,0} get-tuple-element(%s), index=1
  %f = f32[8,8]{1,0} fusion(%x), kind=kOutput, calls=%product, metadata={op_name="jit(step)/transpose(jvp())/dot" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"70"}}
  %g = bf16[8,8]{1,0} fusion(%f), kind=kLoop, calls=%cast, metadata={op_name="jit(step)/rematted/convert" stack_frame_id=4}, backend_config={"window_config":{"estimated_cycles":"5"}}
  ROOT %t = (s32[], bf16[8,8]{1,0}) tuple(%next, %g)
}

%cond (s.1: (s32[], bf16[8,8])) -> pred[] {
  %s.1 = (s32[], bf16[8,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %end = s32[] constant(3)
  ROOT %less = pred[] compare(%i.1, %end), direction=LT
}

ENTRY %main (a: bf16[8,8]) -> bf16[8,8] {
  %a = bf16[8,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %k = bf16[8,8]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/kernel" stack_frame_id=2}
  %start = (s32[], bf16[8,8]{1,0}) tuple(%zero, %k)
  %w = (s32[], bf16[8,8]{1,0}) while(%start), condition=%cond, body=%body
  %big = f32[200,200]{1,0} dynamic-update-slice(%k, %k)
  ROOT %r = bf16[8,8]{1,0} get-tuple-element(%w), index=1
}
"""


def test_cycles_by_part_kind_and_way():
    program = hlo.parse(TEXT)
    found = clock.summary(program, [], CHIP, model_flops=1000)
    # A kernel without FLOPs that are known: 256 bytes at 10 a second, at 50 cycles a second.
    kernel = 1280
    assert found["cycles"] == 3 * 75 + kernel
    assert found["by_part"] == {"decoder layers": 3 * 70 + kernel, "refiners and mask pooling": 15}
    assert found["by_kind"] == {"kernels": kernel, "products": 210, "conversions": 15}
    assert found["by_way"] == {"forward": kernel, "backward": 210, "recomputed": 15}
    assert found["without_cycles"] == {"dynamic-update-slice": 1}
    assert found["seconds"] == found["seconds_no_overlap"] == pytest.approx(found["cycles"] / 50)
    assert found["mfu"] == pytest.approx(10 / found["seconds"])


def test_communication_that_other_work_can_hide_takes_no_time_until_it_is_longest():
    ring = {"kind": "all-reduce", "channel": 1, "size": 4}  # 2 * 3/4 of the bytes over the links
    found = [costs.Collective(**ring, times=2, bytes=10), costs.Collective(**ring, times=1, bytes=40, hidden=True)]
    assert clock.communication(found, CHIP) == {"alone": 6.0, "beside_other_work": 12.0, "between_slices": 0.0}
    program = hlo.parse(TEXT)
    short = clock.summary(program, found, CHIP, 1.0)
    assert short["seconds"] == pytest.approx(short["cycles"] / 50 + 6)
    assert short["seconds_no_overlap"] == pytest.approx(short["seconds"] + 12)
    long = clock.summary(program, [costs.Collective(**ring, times=1, bytes=4000, hidden=True)], CHIP, 1.0)
    assert long["seconds"] == 1200.0


def test_between_slices_a_network_without_a_public_figure_is_unknown():
    between = costs.Collective("all-reduce", 1, times=1, size=4, bytes=40, slices=2)
    assert clock.communication([between], CHIP) == {"alone": 8.0, "beside_other_work": 0.0, "between_slices": 20.0}
    secret = Chip("test", 100.0, 64, 10.0, 5.0, None, "nowhere", (1, 1))
    assert clock.communication([between], secret)["between_slices"] is None


def test_flops_of_a_kernel_are_those_of_its_heads():
    line = '  %k = bf16[2,256,128]{2,1,0} custom-call(%a), custom_call_target="tpu_custom_call", '
    text = "ENTRY %main (a: bf16[2,256,256]) -> bf16[2,256,128] {\n  %a = bf16[2,256,256]{2,1,0} parameter(0)\n"
    text += line + 'metadata={op_name="jit(f)/flat_attention_forward/pallas_call"}\n}\n'
    program = hlo.parse(text)
    assert costs.program_flops(program) == 2 * 2 * 2 * 256 * 256 * 128
    (work,) = clock.work(program, CHIPS["v5e"])
    assert work.kind == "kernels" and work.cycles == pytest.approx(
        max(work.flops / 197e12, 2 * 256 * 384 * 2 / 819e9) * CHIPS["v5e"].clock
    )


def test_clocks_of_the_chips():
    clocks = {name: round(chip.clock / 1e9, 2) for name, chip in CHIPS.items()}
    assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75}
