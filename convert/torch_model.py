"""SmolRGPT in live PyTorch, composed of parts that are not ours: what our model's numbers are compared with.

The backbones are transformers' SiglipVisionModel and LlamaForCausalLM, the rest are PyTorch's own layers. Tensors are read and written
by the PyTorch release's names without our conversion table, so that a mistake in that table shows as a difference. Needs PyTorch
(`pip install -e '.[torch]'`); importing this file does not.
"""

import itertools
import json
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convert.folders import BACKBONES
from smolrgpt_jax.checkpoint.mapping import INV_FREQ, TIED_NAMES
from smolrgpt_jax.checkpoint.safetensors_folder import CONFIG_FILE, SINGLE_FILE, check_fit, open_tensors
from smolrgpt_jax.checkpoint.torch import config_to_torch, read_config, torch_shapes
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.files import new_folder

MODULES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["groups"]
HEAD, EMBEDDING = TIED_NAMES
REFINER_NORM_EPS = 1e-6
POOLING_EPS = 1e-8
Masks = Sequence[np.ndarray] | None


def load_torch(folder: Path) -> "TorchModel":
    """The model in a folder of the PyTorch release's layout, in float32.

    Raises CheckpointError for an unreadable folder and for missing, unexpected or wrongly shaped tensors, ImportError without PyTorch.
    """
    torch, _ = _import_torch()
    folder = Path(folder)
    config = read_config(folder)
    tensors, _ = open_tensors(folder, torch_shapes(config))
    model = TorchModel(config)
    if config.decoder.tied_head and EMBEDDING in tensors:
        tensors.setdefault(HEAD, tensors[EMBEDDING])
        del tensors[EMBEDDING]
    if (inv_freq := tensors.pop(INV_FREQ, None)) is not None:
        model.frequencies.copy_(torch.from_numpy(inv_freq.read()))
    places = model.parameters_by_name()
    shapes = {name: (sum(map(len, parts)), *parts[0].shape[1:]) for name, parts in places.items()}
    check_fit(folder, tensors, {name: _release_shape(name, shape) for name, shape in shapes.items()})
    with torch.no_grad():
        for name, parts in places.items():
            tensor = torch.from_numpy(tensors[name].read().astype(np.float32)).reshape(shapes[name])
            for part, values in zip(parts, tensor.split([len(part) for part in parts])):
                part.copy_(values)
    return model


def left_padded(rows: Sequence[np.ndarray], pad: int, length: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask of prompts, int32[B, S]; length: of them, 0 for the longest's. Raises ValueError for a longer one."""
    longest = max(map(len, rows))
    length = length or longest
    if longest > length:
        raise ValueError(f"a row of {longest} tokens does not fit the {length} asked for")
    ids = np.stack([np.pad(row, (length - len(row), 0), constant_values=pad) for row in rows])
    return ids, np.stack([np.arange(length) >= length - len(row) for row in rows]).astype(np.int32)


def random_torch(config: SmolRGPTConfig, seed: int) -> "TorchModel":
    """A model with random weights under which every parameter matters: norm scales differ from one, biases from zero.

    Matrices keep the variance of their input; those that end a residual branch are divided by the root of the number of branches, as
    when such models are first trained, because deeper sums of whole branches would multiply rounding errors layer by layer.
    """
    torch, _ = _import_torch()
    model = TorchModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parts in model.parameters_by_name().items():
            layers = (config.vision if name.startswith("vision_encoder") else config.decoder).layers
            for part in parts:
                noise = torch.randn(part.shape, generator=generator)
                if name in (HEAD, EMBEDDING):
                    part.copy_(0.02 * noise)
                elif "position_embedding" in name:
                    part.copy_(0.5 * noise)
                elif part.ndim == 1:
                    part.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise)
                else:
                    # Transposed convolutions have their inputs in front.
                    fan_in = len(part) if "refiner" in name else part[0].numel()
                    branch_end = name.endswith(("out_proj.weight", "mlp.fc2.weight", "mlp.down_proj.weight"))
                    part.copy_(noise / (fan_in * (2 * layers if branch_end else 1)) ** 0.5)
    return model


class TorchModel:
    """SmolRGPT on PyTorch, NumPy in and out as `smolrgpt_jax.model.Model`; the methods without NumPy keep the graph of gradients."""

    def __init__(self, config: SmolRGPTConfig):
        torch, transformers = _import_torch()
        nn = torch.nn
        v, d = config.vision, config.decoder
        self.config = config
        vision = {name: getattr(v, ours) for name, (ours, _) in BACKBONES["siglip"]["fields"].items()}
        vision |= {"hidden_act": "gelu_pytorch_tanh", "vision_use_head": False, "attn_implementation": "eager"}
        self.vision = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision))
        decoder = {name: getattr(d, ours) for name, (ours, _) in BACKBONES["llama"]["fields"].items()}
        decoder |= {"num_key_value_heads": d.kv_heads, "head_dim": d.head_dim, "attn_implementation": "eager"}
        decoder |= {"rope_parameters": {"rope_type": "default", "rope_theta": float(d.rope_base)}}
        decoder |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        self.decoder = transformers.LlamaForCausalLM(transformers.LlamaConfig(**decoder))
        self.decoder.model.rotary_emb.attention_scaling = d.rope_scale
        self.frequencies = self.decoder.model.rotary_emb.inv_freq.clone()
        self.connectors = nn.ModuleDict(
            {kind: nn.Linear(v.width * config.shuffle_factor**2, d.width, bias=False) for kind in ("rgb", "depth")}
        )
        up = partial(nn.ConvTranspose2d, d.width, d.width, kernel_size=2, stride=2)
        layers = (up, partial(nn.LayerNorm, d.width, eps=REFINER_NORM_EPS), nn.GELU)
        self.refiners = nn.ModuleDict(
            {kind: nn.Sequential(*(make() for make in (*layers, *layers, up, nn.GELU))) for kind in ("rgb", "depth")}
        )
        self.network = nn.ModuleList([self.vision, self.connectors, self.refiners, self.decoder]).eval()
        self.torch, self.dtype = torch, torch.float32

    def parameters_by_name(self) -> dict[str, list[Any]]:
        """The release's tensor names -> the live parameters that, one after another along the rows, make the tensor."""
        # Older releases of transformers 5 keep the transformer one level down.
        vision = getattr(self.vision, "vision_model", self.vision)
        towers = {"vision": vision, "connectors": self.connectors, "refiners": self.refiners, "decoder": self.decoder}
        names: dict[str, list[Any]] = {}
        for group in MODULES:
            first = next(iter(group))
            layers = (self.config.vision if first.startswith("vision_encoder") else self.config.decoder).layers
            for i, (name, paths) in itertools.product(range(layers if "{i}" in first else 1), group.items()):
                split = [path.format(i=i).split(".", 1) for path in paths]
                modules = [towers[tower].get_submodule(path) for tower, path in split]
                for kind in ("weight", "bias"):
                    if getattr(modules[0], kind, None) is not None:
                        names[f"{name.format(i=i)}.{kind}"] = [getattr(module, kind) for module in modules]
        if self.config.decoder.tied_head:
            del names[EMBEDDING]
        # The release has no module for this table.
        return {name.replace("position_embedding.weight", "position_embedding"): parts for name, parts in names.items()}

    def gradients(self) -> dict[str, np.ndarray]:
        """Gradients left by the last backward passes, by the release's names and in its shapes; parameters without one left out."""
        return {
            name: self._joined(name, [part.grad for part in parts]).numpy()
            for name, parts in self.parameters_by_name().items()
            if all(part.grad is not None for part in parts)
        }

    def _joined(self, name: str, parts: Sequence[Any]) -> Any:
        """The release's tensor of these parts, float32."""
        tensor = self.torch.cat(list(parts)).float()
        return tensor.reshape(_release_shape(name, tensor.shape))

    def save(self, folder: Path) -> None:
        """Writes the folder the PyTorch release would: float32, the tied head once with its twin named in the metadata, the rotary
        buffer. Raises CheckpointError if the folder exists."""
        from safetensors.torch import save_file

        with self.torch.no_grad():
            parameters = self.parameters_by_name()
            tensors = {name: self._joined(name, parts).contiguous() for name, parts in parameters.items()}
        tensors[INV_FREQ] = self.frequencies
        metadata = {EMBEDDING: HEAD} if self.config.decoder.tied_head else {"format": "pt"}
        with new_folder(folder) as aside:
            save_file(tensors, aside / SINGLE_FILE, metadata)
            (aside / CONFIG_FILE).write_text(json.dumps(config_to_torch(self.config), indent=4))

    def encode(self, images: Any) -> Any:
        """images: [B, H, W, 3] -> patch features [B, N, Dv]."""
        return self.vision(images.permute(0, 3, 1, 2)).last_hidden_state

    def connect(self, kind: str, features: Any) -> Any:
        """Patch features [B, N, Dv] -> tokens [B, T, D], through the connector `kind`, "rgb" or "depth"."""
        batch, patches, width = features.shape
        factor, side = self.config.shuffle_factor, self.config.vision.grid
        x = features.reshape(batch, side, side, width)
        # Row in block, column in block, channel: cut the rows into bands, then every band into blocks.
        blocks = [
            x[:, row : row + factor, column : column + factor].reshape(batch, -1)
            for row in range(0, side, factor)
            for column in range(0, side, factor)
        ]
        return self.connectors[kind](self.torch.stack(blocks, dim=1))

    def refine(self, kind: str, tokens: Any) -> Any:
        """Tokens [B, T, D] -> refined map [B, 64 * T, D], row-major, through the refiner `kind`."""
        side = self.config.token_grid
        x = tokens.transpose(1, 2).unflatten(2, (side, side))
        for layer in self.refiners[kind]:
            # The norm is over channels, which PyTorch's convolutions keep in front.
            norm = isinstance(layer, self.torch.nn.LayerNorm)
            x = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if norm else layer(x)
        return x.flatten(2).transpose(1, 2)

    def pool(self, refined: Any, mask: np.ndarray) -> Any:
        """One picture's refined map [g * g, D] and masks [Hm, Wm, R] -> region features [R, D]."""
        grid = self.config.mask_grid
        if mask.shape[-1] == 0:
            return refined[:0]
        weights = self.torch.tensor(np.asarray(mask, np.float32)).permute(2, 0, 1)[None]
        how = {"mode": "bilinear", "align_corners": False, "antialias": False}
        weights = self.torch.nn.functional.interpolate(weights, (grid, grid), **how)[0].flatten(1)
        weights = weights / (weights.sum(dim=1, keepdim=True) + POOLING_EPS)
        return weights.to(refined.dtype) @ refined

    def decode(self, embeddings: Any, attention_mask: Any) -> Any:
        """Embeddings [B, S, D] and attention_mask [B, S] -> hidden states [B, S, D] after the final norm."""
        # Positions count the tokens that are attended to.
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        rotary, longest = self.decoder.model.rotary_emb, self.config.decoder.max_positions
        # Past the longest position, rotary frequencies are divided by how far past it.
        rotary.inv_freq = self.frequencies / max((int(positions.max()) + 1) / longest, 1.0)
        try:
            return self.decoder.model(
                inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=positions, use_cache=False
            ).last_hidden_state
        finally:
            rotary.inv_freq = self.frequencies

    def outputs(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, images: Any, depths: Any = None, masks: Masks = None
    ) -> dict[str, Any]:
        """As `forward`, but PyTorch tensors with their graph; pictures may be tensors that want a gradient."""
        out = self.features(images, depths, masks)
        attention = self.torch.tensor(np.asarray(attention_mask, np.int64))
        out["hidden"] = self.decode(self.embed(input_ids, attention_mask, out, masks), attention)
        out["logits"] = self.decoder.lm_head(out["hidden"])
        return out

    def features(self, images: Any, depths: Any, masks: Masks) -> dict[str, Any]:
        out = {"vision_features_rgb": self.encode(self.torch.as_tensor(images).to(self.dtype))}
        out["image_tokens"] = self.connect("rgb", out["vision_features_rgb"])
        if depths is None or masks is None or not any(mask.shape[-1] for mask in masks):
            return out
        out["vision_features_depth"] = self.encode(self.torch.as_tensor(depths).to(self.dtype))
        out["depth_tokens"] = self.connect("depth", out["vision_features_depth"])
        for kind, tokens in (("rgb", "image_tokens"), ("depth", "depth_tokens")):
            out[f"{kind}_refined"] = self.refine(kind, out[tokens])
            pooled = [self.pool(refined, mask) for refined, mask in zip(out[f"{kind}_refined"], masks)]
            out[f"region_{kind}"] = self.torch.cat(pooled)
        return out

    def embed(self, input_ids: np.ndarray, attention_mask: np.ndarray, features: dict[str, Any], masks: Masks) -> Any:
        """Token embeddings [B, S, D], with the picture's features in the placeholders' places, in order, row by row."""
        image_id = self.config.decoder.vocab_size - 3
        ids = np.asarray(input_ids, np.int64)
        rows = list(self.decoder.model.embed_tokens(self.torch.tensor(ids)))
        replace = [(image_id, list(features["image_tokens"]))]
        if "region_rgb" in features:
            counts = [mask.shape[-1] for mask in masks]
            for token_id, kind in ((image_id + 1, "rgb"), (image_id + 2, "depth")):
                replace.append((token_id, features[f"region_{kind}"].split(counts)))
        for token_id, per_row in replace:
            for row, values in enumerate(per_row):
                places = np.flatnonzero((ids[row] == token_id) & (np.asarray(attention_mask[row]) != 0))
                if len(places) > len(values):
                    only = f"only {len(values)} features for them"
                    raise ValueError(f"row {row} has {len(places)} tokens {token_id} but {only}")
                rows[row] = rows[row].index_copy(
                    0, self.torch.tensor(places), values[: len(places)].to(rows[row].dtype)
                )
        return self.torch.stack(rows)

    def forward(self, *inputs: Any) -> dict[str, np.ndarray]:
        """Logits and every intermediate; arguments and results as `smolrgpt_jax.model.Model.forward`."""
        with self.torch.no_grad():
            out = self.outputs(*inputs)
        return {name: value.float().numpy() for name, value in out.items()}

    def generate(self, *inputs: Any, **limits: int) -> np.ndarray:
        """Greedy continuation of left-padded prompts with transformers' own generation and cache: int32[B, max_new_tokens], eos after
        a row's first eos."""
        return self.generate_with_logits(*inputs, **limits)[0]

    def generate_with_logits(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Masks = None,
        max_new_tokens: int = 120,
        eos_id: int = 2,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `generate`, and the logits each token was chosen from: float32[B, T, vocab], T <= max_new_tokens steps taken.

        Raises ValueError where the answer could pass the decoder's longest position: transformers does not rescale there.
        """
        torch, transformers = _import_torch()
        length, longest = np.shape(input_ids)[1], self.config.decoder.max_positions
        if length + max_new_tokens > longest:
            raise ValueError(f"{length} tokens and {max_new_tokens} new ones pass position {longest}")
        settings = {"max_new_tokens": max_new_tokens, "eos_token_id": eos_id, "pad_token_id": eos_id}
        settings |= {"do_sample": False, "use_cache": True, "return_dict_in_generate": True, "output_logits": True}
        how = transformers.GenerationConfig(**settings)
        with torch.no_grad():
            features = self.features(images, depths, masks)
            embeddings = self.embed(input_ids, attention_mask, features, masks)
            attention = torch.tensor(np.asarray(attention_mask, np.int64))
            chosen = self.decoder.generate(inputs_embeds=embeddings, attention_mask=attention, generation_config=how)
        ids = np.full((len(input_ids), max_new_tokens), eos_id, np.int32)
        # With embeddings as the prompt only the new tokens come back.
        ids[:, : chosen.sequences.shape[1]] = chosen.sequences.numpy()
        return ids, torch.stack(chosen.logits, dim=1).float().numpy()


def _release_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Position embeddings carry a leading dimension of one."""
    return (1, *shape) if "position_embedding" in name else tuple(shape)


def _import_torch() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        needed = f"the package {error.name}: pip install -e '.[torch]'"
        raise ImportError(f"comparing with live PyTorch needs {needed}") from error
    return torch, transformers
