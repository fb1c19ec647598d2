"""Training as the PyTorch release does it: a padded row per question with its own picture, micro-batches, AdamW; timed by who calls."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convert.torch_model import TorchModel, left_padded
from smolrgpt_jax.data.chat import IGNORE, ChatTokenizer
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.records import Picture, Question
from smolrgpt_jax.training.optimizer import OptimizerConfig, schedules
from smolrgpt_jax.training.stages import Stage

Asked = Sequence[tuple[Picture, Question]]
# Arguments of TorchModel.outputs, and targets int64[B, S].
Batch = tuple[tuple[Any, ...], np.ndarray]


def micro_batches(
    model: TorchModel, tokenizer: ChatTokenizer, asked: Asked, size: int, length: int, regions: bool = True
) -> Iterator[Batch]:
    """The questions in padded rows of `length` tokens, `size` at a time; without `regions` no depth and no masks.

    Raises ValueError for a question that is longer.
    """
    config = model.config
    pixels, vocab = config.vision.image_size, config.decoder.vocab_size
    features = {tokenizer.image_id: vocab - 3, tokenizer.mask_rgb_id: vocab - 2, tokenizer.mask_depth_id: vocab - 1}
    prefix = tokenizer.prefix(config.image_tokens)
    for begin in range(0, len(asked), size):
        pictures, questions = zip(*asked[begin : begin + size])
        spoken = tokenizer.conversations([tokenizer.format.turns(question) for question in questions])
        ids, mask = left_padded([np.concatenate([prefix, rest]) for rest, _ in spoken], tokenizer.pad_id, length)
        targets = np.full(ids.shape, IGNORE, np.int64)
        for row, (_, counted) in enumerate(spoken):
            places = np.flatnonzero(counted) + length - len(counted)
            targets[row, places - 1] = ids[row, places]
        ids = np.vectorize(lambda token: features.get(token, token))(ids)
        inputs: list[Any] = [ids, mask, np.stack([load_rgb(picture.image, pixels) for picture in pictures])]
        if regions:
            inputs.append(np.stack([load_depth(picture.depth, pixels) for picture in pictures]))
            inputs.append([np.stack([decode(region) for region in q.regions], axis=-1) for q in questions])
        yield tuple(inputs), targets


class AsReleased:
    """A model in training: what a stage freezes is frozen, the rest has AdamW with the stage's rates."""

    def __init__(
        self,
        model: TorchModel,
        stage: Stage,
        planned: int,
        config: OptimizerConfig = OptimizerConfig(),
        dtype: str = "float32",
    ):
        """planned: steps of the schedule; dtype: that products are computed in, weights are float32."""
        self.model, self.config, self.dtype = model, config, dtype
        for tower in (model.vision, model.decoder):
            tower.set_attn_implementation("sdpa")
        connectors = {f"{kind}_connector": model.connectors[kind] for kind in ("rgb", "depth")}
        parts = {**connectors, "refiners": model.refiners, "decoder": model.decoder}
        self.rates = schedules(stage, planned, config)
        model.network.requires_grad_(False)
        groups = [{"params": list(parts[name].requires_grad_(True).parameters())} for name in self.rates]
        self.trained = [parameter for group in groups for parameter in group["params"]]
        how = {"betas": (config.b1, config.b2), "eps": config.eps, "weight_decay": config.weight_decay}
        self.optimizer = model.torch.optim.AdamW(groups, **how)

    def step(self, number: int, batches: Sequence[Batch]) -> float:
        """One update, the `number`-th from 0, by the mean over the answer tokens of all micro-batches; its loss."""
        torch, loss = self.model.torch, 0.0
        total = sum(int((targets != IGNORE).sum()) for _, targets in batches)
        self.optimizer.zero_grad()
        for arguments, targets in batches:
            device = self.trained[0].device.type
            with torch.autocast(device, getattr(torch, self.dtype), enabled=self.dtype != "float32"):
                logits = self.model.outputs(*arguments)["logits"].flatten(0, 1)
                wanted = torch.tensor(targets).flatten()
                part = torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum") / total
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)
        for group, rate in zip(self.optimizer.param_groups, self.rates.values()):
            group["lr"] = float(rate(number))
        self.optimizer.step()
        return loss

    def write_optimizer(self, path: Path) -> None:
        """Writes the optimiser's moments and counts, as safetensors."""
        from safetensors.torch import save_file

        state = self.optimizer.state_dict()["state"]
        path.parent.mkdir()
        save_file(
            {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}, path
        )

    def read_optimizer(self, path: Path) -> None:
        from safetensors.torch import load_file

        state: dict[int, dict[str, Any]] = {}
        for key, value in load_file(path).items():
            number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
