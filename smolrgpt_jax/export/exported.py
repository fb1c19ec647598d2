"""An exported folder and the questions it is asked, whatever its programs are: what the runners of all exports share.

A copy of this file lies in every exported folder.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smolrgpt_jax.data.inputs import InputSizes
from smolrgpt_jax.data.masks import MASK, RLE, resample_rle
from smolrgpt_jax.data.workings import answer_lines
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import as_path, read_json

if TYPE_CHECKING:
    from smolrgpt_jax.data.images import Source
    from smolrgpt_jax.data.regions import MaskLike

MANIFEST, TOKENIZER = "manifest.json", "tokenizer"


def export_format(folder: str | Path) -> str | None:
    """What the manifest of an exported folder says that it is, None where there is none."""
    try:
        return read_json(as_path(folder) / MANIFEST, dict).get("format")
    except (OSError, ValueError):
        return None


class ExportedFolder:
    """The manifest of an exported folder, and its chat format."""

    def __init__(self, folder: str | Path, form: str):
        """Reads the folder; raises ValueError if it is damaged or of another format than `form`."""
        self.folder = as_path(folder)
        try:
            self.manifest: dict[str, Any] = read_json(self.folder / MANIFEST)
            found = self.manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder} is no exported model: no readable {MANIFEST}") from error
        if found != form:
            raise ValueError(f"{self.folder} has the format {found!r}, this program reads {form!r}")
        sums = self.manifest.get("sha256")
        if not isinstance(sums, dict) or sums.get(MANIFEST, digest(self.manifest)) != digest(self.manifest):
            raise ValueError(f"{self.folder} is damaged: {MANIFEST} is not the file that was exported")
        for name, expected in sums.items():
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder} is damaged: {name} is missing")
            # What reads and asks may be adapted, what it runs may not.
            if name != MANIFEST and not name.endswith(".py") and sha256(self.folder / name) != expected:
                raise ValueError(f"{self.folder} is damaged: {name} is not the file that was exported")
        self.sizes = InputSizes(*(self.manifest[field.name] for field in fields(InputSizes)))

    def new_tokens(self, count: int | None) -> int:
        """How many tokens are generated, None: the most; raises ValueError for more."""
        most = self.manifest["new_tokens"]
        if count is not None and not 1 <= count <= most:
            raise ValueError(f"{count} new tokens are asked for, the model was exported for 1 to {most}")
        return most if count is None else count

    def check_prompts(self, attention_mask: np.ndarray) -> None:
        """Raises ValueError for a prompt, a row of int[B, S], that is longer than what the programs were made for."""
        longest = self.manifest["prompt_tokens"]
        for row, length in enumerate(attention_mask.sum(axis=1)):
            if length > longest:
                raise ValueError(f"row {row} has {length} prompt tokens, the model was exported for {longest}")

    def prompt(self, question: str) -> np.ndarray:
        """The ids of a question about a picture, int32[n], with one "<mask>" per region; needs the package tokenizers."""
        chat = self.manifest["chat"]
        start, *rest = question.split(MASK)
        for number, text in enumerate(rest):
            start += f"{number if chat['region_names'] else ''}{chat['region']}{text}"
        picture = [self.manifest["token_ids"]["image"]] * self.manifest["image_tokens"]
        user, asked, assistant = (
            self._tokenizer().encode(text, add_special_tokens=False).ids
            for text in (chat["user"], start + chat["end"], chat["assistant"])
        )
        return np.array([*user, *picture, *asked, *assistant], np.int32)

    def text(self, ids: np.ndarray) -> str:
        """The text of a generated row up to its first eos; needs the package tokenizers."""
        ended = np.flatnonzero(ids == self.manifest["token_ids"]["eos"])
        return self._tokenizer().decode(ids[: ended[0] if ended.size else None].tolist()).strip()

    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.folder / TOKENIZER / "tokenizer.json"))


def answer(
    model: Any,
    image: "Source",
    question: str,
    *,
    depth: "Source | None" = None,
    masks: "MaskLike | Sequence[MaskLike] | None" = None,
    boxes: Sequence[Sequence[float]] | None = None,
) -> str:
    """What a model, `ExportedModel`, answers to one question with one "<mask>" per region; needs Pillow and tokenizers.

    image, depth: picture files; masks: mask pictures, or RLEs as COCO has them; boxes: (x1, y1, x2, y2) in pixels, instead of masks.
    Raises DataError, which is a ValueError, for what cannot be used.
    """
    from smolrgpt_jax.data.images import picture_size
    from smolrgpt_jax.data.regions import check_marks, read_regions

    regions = read_regions(masks, boxes, picture_size(image))
    check_marks(question, regions)
    if regions and depth is None:
        raise DataError("a question about regions needs the depth picture")
    return model.text(written(model, image, depth, regions, [question])[0])


def written(
    model: Any,
    image: Any,
    depth: Any,
    regions: Sequence[RLE],
    questions: Sequence[str],
    max_new_tokens: int | None = None,
) -> np.ndarray:
    """Answers to questions about all of the regions, or about none: int32[Q, N]; arguments and errors as in `answer`."""
    from smolrgpt_jax.data.images import load_depth, load_rgb

    side, rows = model.sizes.image_size, len(questions)
    prompts = [model.prompt(question) for question in questions]
    length = max(map(len, prompts))
    ids = np.stack([np.pad(prompt, (length - len(prompt), 0)) for prompt in prompts])
    attended = np.stack([np.arange(length) >= length - len(prompt) for prompt in prompts]).astype(np.int32)
    pictures: list[Any] = [np.repeat(load_rgb(image, side)[None], rows, axis=0)]
    if regions:
        # Sampled here, since sampling again on the same grid changes nothing: dense masks would take as much memory as pictures.
        masks = np.stack([resample_rle(region, model.sizes.mask_grid) for region in regions], axis=-1)
        pictures += [np.repeat(load_depth(depth, side, beside=image)[None], rows, axis=0), [masks] * rows]
    return model.generate(ids, attended, *pictures, max_new_tokens=max_new_tokens)


def answer_questions(load: Callable[[Path], Any], file: str, doc: str | None, arguments: Sequence[str] | None) -> None:
    """The command of a runner, the file with that docstring: asks the model that `load` makes of a folder, prints its answers."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.register("type", Path, as_path)
    parser.add_argument("--model", type=Path, default=Path(file).parent, help="exported folder (default: this file's)")
    more = f"further questions about the picture, each about all regions, with one {MASK} per region, or about none"
    parser.add_argument("--also", nargs="+", default=[], metavar="QUESTION", help=more)
    # Imported here: only this needs Pillow.
    from smolrgpt_jax.data.regions import check_marks, parse_arguments, what_is_asked

    args = parse_arguments(parser, arguments)
    question, regions = what_is_asked(args)
    for further in args.also:
        check_marks(further, regions if MASK in further else ())
    model = load(args.model)
    for ids in written(model, args.image, args.depth, regions, [question, *args.also]):
        print(answer_lines(model.text(ids)))
        if model.manifest["token_ids"]["eos"] not in ids:
            cut = f"the answer was cut off after {len(ids)} tokens, the most this model was exported for"
            print(cut, file=sys.stderr)


def sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(manifest: dict[str, Any]) -> str:
    """Of what a manifest says besides checksums."""
    held = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
