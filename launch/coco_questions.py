"""Asks questions about RGB-D pictures with annotations of COCO, and writes them as data to train on and to be scored with."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from eval.command_line import command_line
from eval.side_questions import MARGIN, centre
from smolrgpt_jax.data.images import picture_size, stored_depth
from smolrgpt_jax.data.masks import MASK, RLE, decode
from smolrgpt_jax.data.records import BadRecords, describe, spread
from smolrgpt_jax.data.regions import read_masks
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import link, new_folder, read_json, write_list

NEARER = 0.10  # relative, between two distances to the camera that are compared
MEASURED = 0.5  # share of a mask whose depth has to be known
FEWEST, MOST = 3, 6  # objects of a question that lists them
DEPTHS = ("{}.png", "{}_depth.png", "{}.tif", "{}.tiff")  # of a picture's name without suffix
MILLIMETRE = 0.001


@dataclasses.dataclass(frozen=True)
class Thing:
    """An annotated object."""

    name: str  # of its category
    region: RLE
    across: float  # centroid as a share of the picture's width
    ahead: float | None  # metres along the optical axis, the middle of its depth; None where that is not known
    point: (
        tuple[float, float, float] | None
    )  # metres from the camera to the right, down and ahead; None without a focal length


@dataclasses.dataclass(frozen=True)
class Folders:
    images: Path
    depths: Path

    def image(self, name: str) -> Path:
        """The file of an image of COCO, under its whole name or, where that is not there, its last part."""
        path = PureWindowsPath(name)
        found = [file for file in (self.images / path.as_posix(), self.images / path.name) if file.is_file()]
        if path.is_absolute() or ".." in path.parts or not found:
            raise DataError(f"picture {self.images / path.as_posix()} is missing")
        return found[0]

    def depth(self, image: Path) -> Path:
        """The depth of a picture, which lies under its name in `depths`, or in a folder of that in such a folder."""
        inside = self.depths / image.relative_to(self.images).parent
        names = [name.format(image.stem) for name in DEPTHS]
        found = next((inside / name for name in names if (inside / name).is_file()), None)
        if found is None:
            raise DataError(f"{image} has no depth {' or '.join(names[:2])} in {inside}")
        return found


def metres(depth: np.ndarray, unit: float | None) -> np.ndarray | None:
    """A file's depth as float64[H, W] in metres, NaN where it was not measured; None for 8 bits, which are of no unit.

    unit: metres of one step, by default a millimetre of whole numbers and a metre of floats.
    """
    if depth.dtype == np.uint8 and unit is None:
        return None
    whole = depth.dtype.kind in "iu"
    known = (depth > 0) & np.isfinite(depth) & ~(whole & (depth == 65535))
    return np.where(known, depth * (unit or (MILLIMETRE if whole else 1.0)), np.nan)


def thing(name: str, region: RLE, depth: np.ndarray | None, focal: float | None) -> Thing:
    """An object of a picture whose depth is in metres; focal: length in pixels. Raises ValueError for an empty mask."""
    across, pixels = centre(region), decode(region) > 0
    if depth is None or np.isfinite(depth[pixels]).mean() < MEASURED:
        return Thing(name, region, across, None, None)
    ahead = float(np.nanmedian(depth[pixels]))
    if focal is None:
        return Thing(name, region, across, ahead, None)
    down = (float(np.nonzero(pixels)[0].mean()) + 0.5) / region.height
    right, below = (
        (share - 0.5) * side * ahead / focal for share, side in ((across, region.width), (down, region.height))
    )
    return Thing(name, region, across, ahead, (right, below, ahead))


Asked = tuple[
    str, str, str, str | int | float, tuple[Thing, ...]
]  # category, question, answer, its value, regions in order


def sides(pair: Sequence[Thing]) -> Asked | None:
    """Left or right, where that is clear."""
    a, b = pair
    if abs(a.across - b.across) <= MARGIN:
        return None
    side = "left" if a.across < b.across else "right"
    question = f"Is the {a.name} {MASK} to the left or right of the {b.name} {MASK}?"
    return "left_right", question, f"The {a.name} [Region 0] is to the {side} of the {b.name} [Region 1].", side, (a, b)


def apart(pair: Sequence[Thing]) -> Asked | None:
    """The distance of two surfaces' middles."""
    a, b = pair
    if a.point is None or b.point is None:
        return None
    far = round(math.dist(a.point, b.point), 1)
    question = f"How far is the {a.name} {MASK} from the {b.name} {MASK}?"
    answer = f"The {a.name} [Region 0] is {far:.1f} meters from the {b.name} [Region 1]."
    return "distance", question, answer, far, (a, b)


def nearest(listed: Sequence[Thing]) -> Asked | None:
    """Which of some objects is closest to the camera, where that is clear."""
    order = sorted((t.ahead, number) for number, t in enumerate(listed) if t.ahead is not None)
    if len(order) < len(listed) or order[1][0] < order[0][0] * (1 + NEARER):
        return None
    best = order[0][1]
    question = f"Which of the objects {' '.join([MASK] * len(listed))} is closest to the camera?"
    return "mcq", question, f"The object [Region {best}] is closest to the camera.", best, tuple(listed)


def nearer(listed: Sequence[Thing]) -> Asked | None:
    """How many objects are nearer to the camera than the last one, where that is clear of each."""
    *others, last = listed
    ratios = [t.ahead / last.ahead if t.ahead and last.ahead else 1.0 for t in others]
    if any(1 / (1 + NEARER) < ratio < 1 + NEARER for ratio in ratios):
        return None
    count = sum(ratio < 1 for ratio in ratios)
    marks = " ".join([MASK] * len(others))
    question = f"How many objects among {marks} are closer to the camera than the {last.name} {MASK}?"
    are = "object is" if count == 1 else "objects are"
    return "count", question, f"{count} {are} closer to the camera.", count, tuple(listed)


def questions(things: Sequence[Thing], most: int, rng: np.random.Generator) -> list[Asked]:
    """At most so many questions about one picture, categories in turn, about different objects."""
    pairs = [list(pair) for pair in itertools.permutations(things, 2)] if len(things) < 40 else []
    pairs = pairs or [[things[i] for i in rng.choice(len(things), 2, replace=False)] for _ in range(200)]
    rng.shuffle(pairs)
    size = min(len(things), MOST)
    lists = [
        [things[i] for i in rng.choice(len(things), rng.integers(FEWEST, size + 1), replace=False)]
        for _ in range(4 * most if size >= FEWEST else 0)
    ]
    streams = [_different(map(sides, pairs)), _different(map(apart, pairs)), _different(map(nearest, lists))]
    streams.append(_different(map(nearer, lists)))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    return list(itertools.islice(filter(None, turns), most))


def _different(asked: Iterator[Asked | None]) -> Iterator[Asked]:
    """Those that can be asked, each set of objects once."""
    seen: set[frozenset[int]] = set()
    for question in asked:
        if question is not None and (about := frozenset(map(id, question[4]))) not in seen:
            seen.add(about)
            yield question


def read_coco(file: Path) -> list[tuple[Mapping[str, Any], list[tuple[str, Any]]]]:
    """The images of an annotation file, each with its objects: (name of the category, annotation).

    Raises DataError for a file that is none, and for an annotation without its image or category.
    """
    coco = read_json(file, dict)
    parts = [coco.get(name) for name in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in parts):
        raise DataError(f"{file}: holds no images, annotations and categories of COCO")
    images, annotations, categories = parts
    names = {category.get("id"): str(category.get("name")) for category in categories}
    found: dict[Any, list[tuple[str, Any]]] = {image.get("id"): [] for image in images}
    if len(found) < len(images):
        raise DataError(f"{file}: two images have one id")
    for annotation in annotations:
        name, image = names.get(annotation.get("category_id")), found.get(annotation.get("image_id"))
        if name is None or image is None:
            what = (
                f"category {annotation.get('category_id')!r}"
                if name is None
                else f"image {annotation.get('image_id')!r}"
            )
            raise DataError(f"{file}: annotation {annotation.get('id')!r} is of {what}, which the file does not have")
        image.append((name, annotation))
    return [(image, found[image.get("id")]) for image in images]


def ask(
    image: Mapping[str, Any], objects: Sequence[tuple[str, Any]], folders: Folders, args: Any
) -> list[dict[str, Any]]:
    """The records of one image, without their files' folders; raises DataError for what cannot be read."""
    file = folders.image(str(image.get("file_name")))
    size = picture_size(file)
    depth = metres(stored_depth(folders.depth(file)), args.depth_unit)
    if depth is not None and depth.shape != size:
        depth = np.asarray(Image.fromarray(depth.astype(np.float32)).resize(size[::-1], Image.Resampling.NEAREST))
    focal = image.get("focal", args.focal)
    if focal is not None and not (type(focal) in (int, float) and 0 < focal < np.inf):
        raise DataError(f"its focal length is {focal!r}, not a number of pixels above 0")
    things = []
    for name, annotation in objects:
        try:
            (region,) = read_masks([annotation], size)
            things.append(thing(name, region, depth, focal))
        except (TypeError, ValueError) as error:
            raise DataError(f"annotation {annotation.get('id')!r}: {error}") from error
    if len(things) < 2:
        return []
    name, records = file.relative_to(folders.images).as_posix(), []
    rng = np.random.default_rng([args.seed, *name.encode()])
    for number, (category, question, answer, value, regions) in enumerate(questions(things, args.per_picture, rng)):
        said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        rle = [t.region.as_coco() for t in regions]
        about = {"id": f"{image.get('id')}-{number}", "image": name, "category": category, "normalized_answer": value}
        records.append({**about, "conversations": said, "rle": rle})
    return records


def write(asked: Mapping[str, Sequence[list[dict[str, Any]]]], folders: Folders, out: Path) -> dict[str, str]:
    """Writes the records of each split's pictures with links to the pictures, and returns a line for people on each split."""
    with new_folder(out) as whole:
        for split, pictures in asked.items():
            for records in pictures:
                image = folders.images / records[0]["image"]
                name = Path(records[0]["image"])
                copies = {image: whole / split / "images" / name}
                copies[folders.depth(image)] = whole / split / "depths" / name.with_name(f"{name.stem}_depth.png")
                for source, target in copies.items():
                    if target.exists():
                        raise DataError(f"two pictures are called {name.stem}: their depth would be one file")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    link(source, target)
            write_list(whole / f"{split}.json", itertools.chain.from_iterable(pictures))
        try:
            return {split: describe(read_warehouse(whole, split)) for split in asked}
        except DataError as error:
            raise DataError(str(error).replace(str(whole), str(out))) from error


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("launch.coco_questions", __doc__, on_bad_record=BadRecords.POLICIES).parse_args(arguments)
    print(f"asking about the annotations of {args.annotations}, writing to {args.out}", flush=True)
    bad, folders, asked = BadRecords(args.on_bad_record), Folders(args.images, args.depths), []
    for image, objects in read_coco(args.annotations):
        try:
            asked.append(ask(image, objects, folders, args))
        except DataError as error:
            bad.reject(DataError(f"{args.annotations}: image {image.get('id')!r}: {error}"))
    if bad.reasons:
        print(bad.summary())
    usable = [records for records in asked if records]
    print(f"{len(usable)} of {len(asked)} pictures have two objects or more that can be asked about")
    held = set(spread(len(usable), round(args.val_share * len(usable))).tolist())
    splits = {"train": [r for n, r in enumerate(usable) if n not in held], "val": [usable[n] for n in sorted(held)]}
    splits = {split: records for split, records in splits.items() if records}
    if not splits:
        raise DataError(f"{args.annotations}: no picture has two objects that can be asked about")
    for split, about in write(splits, folders, args.out).items():
        print(f"{split}: {about}")


if __name__ == "__main__":
    main()
