"""The exported folder in a process of its own, which cannot import the library, against the PyTorch release's outputs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

LOGITS_TOLERANCE = 1e-4

# Arguments: the exported folder, the folder of the golden files, the file to write. Answers the golden prompts, and reads the golden
# conversations from the end of their last region on token by token.
PROGRAM = """
import sys

sys.modules["smolrgpt_jax"] = None  # importing it raises ImportError, wherever it may lie
folder, golden, out = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
from run import ExportedModel

inputs, outputs = np.load(f"{golden}/inputs.npz"), np.load(f"{golden}/outputs.npz")
images, depths = (inputs[name].transpose(0, 2, 3, 1) for name in ("image", "depth"))
masks = [inputs[f"mask_{row}"] for row in range(len(images))]
model = ExportedModel(folder)
ids = model.generate(outputs["prompt_ids"], outputs["prompt_attention_mask"], images, depths, masks)

def logits(ids, pictures, start):
    state = model.prefill(ids[:, :start], inputs["attention_mask"][:, :start], *pictures)
    found = [np.asarray(state.logits)]
    for column in range(start, ids.shape[1]):
        state = model.decode(state, ids[:, column])
        found.append(np.asarray(state.logits))
    return np.stack(found, axis=1)

start = int(np.max(np.nonzero(inputs["input_ids"] >= 512)[1])) + 1
np.savez(
    out,
    ids=ids,
    start=start,
    logits=logits(inputs["input_ids"], (images, depths, masks), start),
    rgb_only_logits=logits(outputs["rgb_only_ids"], (images,), start),
)
assert not [name for name in sys.modules if name.startswith("smolrgpt_jax.")]
"""


@pytest.fixture(scope="module")
def found(exported, golden, tmp_path_factory) -> dict[str, np.ndarray]:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, str(exported), str(golden.folder.parent), str(elsewhere / "found.npz")],
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(elsewhere / "found.npz"))


def test_greedy_tokens_equal_pytorch(found, golden):
    np.testing.assert_array_equal(found["ids"], golden.outputs["greedy_ids"])


@pytest.mark.parametrize("name", ["logits", "rgb_only_logits"])
def test_logits_of_prefill_and_decode_equal_pytorch(found, golden, name):
    theirs = golden.outputs[name]
    expected = theirs[:, int(found["start"]) - 1 :]
    assert found[name].shape == expected.shape and expected.shape[1] >= 5
    assert np.abs(found[name] - expected).max() <= LOGITS_TOLERANCE * np.abs(theirs[golden.valid]).max()
