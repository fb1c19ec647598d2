"""Makes a procedural warehouse in the published folder format."""

import dataclasses

from eval.command_line import command_line
from smolrgpt_jax.errors import told
from smolrgpt_jax.warehouse.parameters import FORMATS, MIXES, WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse


@told()
def main() -> None:
    parser = command_line("launch.make_warehouse", __doc__)
    for field in dataclasses.fields(WarehouseConfig):
        if about := field.metadata.get("about"):
            kind, choices = type(field.default), MIXES if field.name == "mix" else None
            about += " (default %(default)s)"
            parser.add_argument(f"--{field.name}", type=kind, default=field.default, choices=choices, help=about)
    arguments = vars(parser.parse_args())
    out, workers = arguments.pop("out"), arguments.pop("workers")
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers are too few")
    formats = tuple(name for name in FORMATS if arguments.pop(name))
    config = WarehouseConfig(**arguments, formats=formats)
    sizes = ", ".join(f"{size} {split}" for split, size in config.split_sizes().items())
    details = ", ".join([f"{config.width}x{config.height} pixels", f"seed {config.seed}", *formats])
    print(f"making a warehouse in {out}: scenes {sizes}; {details}")
    metadata = make_warehouse(out, config, workers)
    for split, found in metadata["splits"].items():
        captions = f"{found['region_captions']} region captions, {found['scene_captions']} scene captions"
        print(f"{split}: {_listed(found['questions'])}; {captions}")
        if any(found["questions"].values()):
            print(f"  answers: {describe_answers(found)}")
    for name, counts in metadata["formats"].items():
        print(f"{name}: {_listed(counts)}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {number}" for what, number in counts.items())


def describe_answers(found: dict) -> str:
    """One line on how the answers of a split are distributed, from its entry in metadata.json."""
    parts = []
    for category, name in (("left_right", "left_right"), ("count", "count"), ("mcq", "mcq region")):
        counts = found[f"{category}_answers"].items()
        parts.append(f"{name} " + " ".join(f"{answer}:{number}" for answer, number in counts))
    if metres := found.get("distance_metres"):
        quartiles = " / ".join(map(str, metres["quartiles"]))
        parts.append(f"distance quartiles {quartiles} m, largest {metres['largest']} m, {metres['zeros']} zeros")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
