"""A contact sheet of a warehouse: RGB and depth with their regions, and a question with its answer."""

import textwrap
from collections.abc import Sequence
from itertools import accumulate, cycle

from PIL import Image, ImageDraw, ImageFont

from eval.command_line import command_line
from eval.report.html import numbered
from eval.report.overlay import draw_regions
from smolrgpt_jax.data.images import upright_depth
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture, Question
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import file_aside

WIDTH = 640  # pixels of each of the two pictures
COLUMNS, GAP, FONT_SIZE = 2, 12, 15
LETTERS = 180  # of a line below the pictures
PAPER, INK, GREY = (250, 250, 248), (25, 27, 30), (90, 95, 100)


def chosen(pictures: Sequence[Picture], number: int) -> list[tuple[Picture, Question]]:
    """The first pictures with a question each, the categories by turns where a picture has them."""
    return [
        (picture, next((q for q in picture.questions if q.category == wanted), picture.questions[0]))
        for picture, wanted in zip(pictures[:number], cycle(WAREHOUSE_CATEGORIES))
    ]


def gallery(pairs: Sequence[tuple[Picture, Question]]) -> Image.Image:
    """The contact sheet; raises DataError where a picture cannot be opened."""
    tiles = [_tile(picture, question) for picture, question in pairs]
    rows = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    tops = list(accumulate((max(tile.height for tile in row) + GAP for row in rows), initial=GAP))
    sheet = Image.new("RGB", (COLUMNS * (tiles[0].width + GAP) + GAP, tops[-1]), PAPER)
    for row, top in zip(rows, tops):
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP + column * (tile.width + GAP), top))
    return sheet


def _tile(picture: Picture, question: Question) -> Image.Image:
    shown = [draw_regions(picture.image, question.regions, WIDTH)]
    if picture.depth is not None:
        shown.append(draw_regions(upright_depth(picture.depth, picture.image), question.regions, WIDTH))
    font = ImageFont.load_default(FONT_SIZE)
    answer = "(no answer published)" if question.answer is None else question.answer
    title = f"{picture.id}  {question.category}"
    texts = [(title, GREY), (numbered(question.prompt, "Region "), INK), (f"-> {answer}", INK)]
    lines = [(line, ink) for text, ink in texts for line in textwrap.wrap(text, LETTERS)]
    line_height = FONT_SIZE + 5
    tile = Image.new("RGB", (2 * WIDTH, shown[0].height + line_height * len(lines) + 8), PAPER)
    for column, image in enumerate(shown):
        tile.paste(image, (column * WIDTH, 0))
    draw = ImageDraw.Draw(tile)
    for number, (line, ink) in enumerate(lines):
        draw.text((2, shown[0].height + 4 + number * line_height), line, font=font, fill=ink)
    return tile


@told()
def main() -> None:
    arguments = command_line("launch.warehouse_gallery", __doc__).parse_args()
    if arguments.scenes < 1:
        raise ValueError(f"{arguments.scenes} scenes are too few")
    answered = arguments.split == "test" and (arguments.data / "test_answers.json").exists()
    pictures = read_warehouse(arguments.data, arguments.split, "test_answers.json" if answered else None)
    if not pictures:
        raise DataError(f"{arguments.data} has no questions in the split {arguments.split}")
    shown = chosen(pictures, arguments.scenes)
    print(f"drawing {len(shown)} pictures of {arguments.data}/{arguments.split} into {arguments.out}")
    sheet = gallery(shown)
    with file_aside(arguments.out) as aside:
        sheet.save(aside)


if __name__ == "__main__":
    main()
