"""What is made of the questions of prepared data, tokens and plans of rows, kept for the next start and for other hosts."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import Picture, PreparedPicture
from smolrgpt_jax.files import as_path, file_aside

# Another release may make something else of the same questions.
_CODE = (
    *("kept.py", "chat.py", "records.py", "rows.py", "plan.py", "batches.py", "trained_on.py"),
    *("prepared/reader.py", "prepared/columns.py"),
)


def place_of(pictures: Sequence[Picture], tokenizer: ChatTokenizer, folder: str = "") -> Path | None:
    """A name for all questions of prepared splits and their tokens, in a folder or within the first split's; None for raw pictures."""
    prepared = [picture for picture in pictures if isinstance(picture, PreparedPicture)]
    if not prepared or len(prepared) < len(pictures):
        return None
    files = [Path(__file__).parent / name for name in _CODE]
    splits = dict.fromkeys((picture.folder, picture.split) for picture in prepared)
    files += [root / f"questions-{split}.parquet" for root, split in splits]
    order = np.array([(picture.number, len(picture.questions)) for picture in prepared])
    parts = [order.tobytes(), tokenizer.fingerprint().encode(), *(file.read_bytes() for file in files)]
    name = "".join(hashlib.sha256(part).hexdigest() for part in parts)
    return (as_path(folder) if folder else prepared[0].folder / "kept") / name


def place_of_all(places: Sequence[Path | None]) -> Path | None:
    """A name for all questions of several places together; None where one has none."""
    known = [place for place in places if place is not None]
    return known[0].with_name(" ".join(place.name for place in known)) if len(known) == len(places) else None


def kept(place: Path | None, what: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a name, read back, or made and written whole or not at all; what is damaged is made anew."""
    if place is None:
        return make()
    file = place.with_name(f"{hashlib.sha256((place.name + what).encode()).hexdigest()}.npz")
    try:
        with np.load(file) as found:  # each array has a checksum
            return dict(found)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        _warn(f"what is kept in {file.parent} cannot be read ({error.strerror or error})")
    except Exception as error:  # of many classes, as the damage may be anywhere
        logging.warning("%s is damaged: made anew (%s)", file, " ".join(str(error).split()))
    made = make()
    try:
        with file_aside(file) as aside:
            np.savez(aside, allow_pickle=False, **made)
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error).removeprefix(f"{file} ")
        _warn(f"nothing can be kept in {file.parent} for the next start, see config.data.cache ({why})")
    return made


@functools.cache
def _warn(sentence: str) -> None:
    """Once for all that a run would keep."""
    logging.warning(sentence)


def kept_json(place: Path | None, what: str, make: Callable[[], Any]) -> Any:
    """`kept` for what JSON can hold."""
    text = kept(place, what, lambda: {"json": np.frombuffer(json.dumps(make()).encode(), np.uint8)})
    return json.loads(text["json"].tobytes())
