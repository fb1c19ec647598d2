"""Colours of a picture, from the face that each pixel shows and the point of it that is hit.

Shadows and pools of light are soft, so a grid of a few centimetres with bilinear lookup shows no steps, and costs a picture as much for
thirty shadows as for three.
"""

import functools
from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.warehouse.picture.zbuffer import CEILING, FLOOR, ROOM_FACES, ROOM_NORMALS, Faces, Pixels
from smolrgpt_jax.warehouse.scene.geometry import edge_distance, moved
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.scene.look import Look
from smolrgpt_jax.warehouse.scene.objects import COLORS, WHITE, Color, Cuboid

FINEST, COARSE = 0.05, 0.5  # metres, cells of the maps of light
PLATE = 0.6  # metres
DARK, HAZARD, TAPE, LABEL, INK = COLORS["marks"]
MARGIN = 0.5  # metres of grid beyond the walls, so that no lookup leaves it
TRACK = 0.07  # metres, half the width of a tyre's track
TEXELS = 512
TEXEL = 0.02  # metres
# Strokes of the digits 1 to 3 on a plate that reaches from -1 to 1: (x0, y0, x1, y1).
BARS = ((-0.4, 0.5, 0.4, 0.7), (-0.4, -0.1, 0.4, 0.1), (-0.4, -0.7, 0.4, -0.5))
DIGITS = {
    1: ((-0.1, -0.7, 0.1, 0.7),),
    2: (*BARS, (0.2, 0.0, 0.4, 0.6), (-0.4, -0.6, -0.2, 0.0)),
    3: (*BARS, (0.2, -0.6, 0.4, 0.6)),
}
# Points (indices or bool), the colour laid on them, and how much of what is below it covers.
Layer = tuple[np.ndarray, Color, float]


def shade(scene: Scene, pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8[H, W, 3] of all pixels and numbers of the things seen, int32[H, W]."""
    axes, eye = scene.camera.axes.astype(np.float32), scene.camera.position
    faces, depth, flat = pixels.faces, pixels.depth.ravel(), pixels.shown.ravel()
    across = (pixels.depth * pixels.columns).ravel()
    down = (pixels.depth * pixels.rows[:, None]).ravel()
    # Three coordinates kept apart: contiguous arrays are several times faster than [N, 3].
    hit = [across * axes[0, k] + down * axes[1, k] + depth * axes[2, k] + np.float32(eye[k]) for k in range(3)]
    tone = 1 + _stains(scene.texture_seed, hit)
    # Light falls off with distance, as under the lamps of the published pictures.
    tone *= np.float32(1.06) - np.float32(0.012) * depth
    ids = np.zeros(flat.shape, np.int32)
    base, lit = _face_colors(scene, faces)
    color = base[flat]

    floor = np.flatnonzero(flat == FLOOR)
    x, y = hit[0][floor], hit[1][floor]
    tone[floor] *= _floor_tone(scene, x, y, pixels.focal)
    ids[floor], layers = _floor_layers(scene, x, y)
    light = (base[FLOOR] / np.array(scene.colors.floor)).mean()
    for points, paint, cover in layers:
        color[floor[points]] = _covered(color[floor[points]], np.array(paint, np.float32) * light, cover)

    wall = np.flatnonzero((flat > CEILING) & (flat < ROOM_FACES))
    tone[wall] *= _wall_tone(scene, hit, wall)
    middle, half = scene.look.stripe
    color[wall[np.abs(hit[2][wall] - middle) < half]] = np.array(scene.colors.stripe, np.float32)

    box = np.flatnonzero(flat >= ROOM_FACES)
    if box.size:
        face = flat[box] - ROOM_FACES
        owners = np.array([cuboid.owner for cuboid in scene.cuboids], np.int32)
        ids[box] = owners[faces.cuboid[face]]
        seams, layers = _box_marks(scene, faces, face, [h[box] for h in hit], depth[box], pixels.focal)
        tone[box] *= seams
        for points, paint, cover in layers:
            places = box[points]
            color[places] = _covered(color[places], np.array(paint, np.float32) * lit[flat[places], None], cover)

    color *= tone[:, None] * np.array(scene.tint, np.float32) * 255
    rgb = np.clip(color + 0.5, 0, 255).astype(np.uint8).reshape(*pixels.depth.shape, 3)
    return _developed(scene.look, rgb), ids.reshape(pixels.depth.shape)


def _covered(color: np.ndarray, paint: np.ndarray, cover: float) -> np.ndarray:
    """Paint over a colour; a cover of 1 hides it."""
    return paint if cover == 1 else color + np.float32(cover) * (paint - color)


def _developed(look: Look, rgb: np.ndarray) -> np.ndarray:
    """The picture with the camera's tone curve and dark corners, uint8[H, W, 3]."""
    if look.vignette:
        dark = np.float32(0.5 * look.vignette)
        down, across = (1 - dark * np.linspace(-1, 1, size, dtype=np.float32) ** 2 for size in rgb.shape[:2])
        rgb = (rgb * (down[:, None] * across)[..., None]).astype(np.uint8)
    if look.gamma != 1:
        rgb = np.round(255 * (np.arange(256) / 255) ** look.gamma).astype(np.uint8)[rgb]
    return rgb


def _face_colors(scene: Scene, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Lit colour of every face without texture, float32[6 + F, 3], and its light, float32[6 + F]."""
    normals = np.concatenate([ROOM_NORMALS, faces.normal])
    lit = scene.ambient + 0.45 * np.maximum(normals @ np.array(scene.light), 0.0)
    if scene.look.lamps and faces.cuboid.size:
        lit[ROOM_FACES:] = _lamp_light(scene, faces, lit[ROOM_FACES:])
    own = np.array([cuboid.color for cuboid in scene.cuboids]).reshape(-1, 3)
    colors = np.concatenate([np.array([scene.colors.floor] + 5 * [scene.colors.wall]), own[faces.cuboid]])
    return (colors * lit[:, None]).astype(np.float32), lit.astype(np.float32)


def _lamp_light(scene: Scene, faces: Faces, even: np.ndarray) -> np.ndarray:
    """Light on the boxes' faces under the lamps, float64[F]; `even` is that without them."""
    centers = faces.centers[faces.cuboid]
    light = even * lamp_tone(scene, *centers[:, :2].T.astype(np.float32))
    for lamp in scene.look.lamps:
        toward = np.array(lamp.position) - centers
        distance = np.linalg.norm(toward, axis=1)
        turned = np.maximum(np.einsum("fi,fi->f", faces.normal, toward) / distance, 0)
        light += 0.25 * lamp.strength * (turned - 0.4) / (1 + (distance / 6) ** 2)
    return np.maximum(light, 0.15)


def _stains(seed: int, hit: list[np.ndarray]) -> np.ndarray:
    """Low-frequency brightness, about 5 %: a few plane waves through the room, float32[N]."""
    rng = np.random.default_rng(seed)
    total = np.zeros_like(hit[0])
    for frequency in (0.5, 1.1, 2.3):
        direction = rng.normal(size=3)
        x, y, z = (frequency * direction / np.linalg.norm(direction)).astype(np.float32)
        total += np.sin(x * hit[0] + y * hit[1] + z * hit[2] + np.float32(rng.uniform(0, 6.28)))
    return np.float32(0.03) * total


def _floor_tone(scene: Scene, x: np.ndarray, y: np.ndarray, focal: float) -> np.ndarray:
    """Joints between slabs, light and soft shadows under what stands, float32[N]."""
    look = scene.look
    tone = np.ones_like(x)
    slab = np.float32(look.slab)
    joints = (np.abs(np.mod(x, slab) - slab / 2) < 0.02) | (np.abs(np.mod(y, slab) - slab / 2) < 0.02)
    tone[joints] = look.joint
    if look.grain:
        tone *= 1 + np.float32(look.grain) * floor_grain(scene.texture_seed, x, y)
    if look.lamps:
        # About a pixel of a picture of the floor 8 metres away.
        cell = max(FINEST, 8 / focal)
        return tone * look_up(light_map(scene, cell), scene, cell, x, y)
    for thing in scene.things:
        if thing.kind != "buffer":
            # The shadow leans away from the light.
            lean = [thing.position[k] - look.lean * scene.light[k] for k in range(2)]
            edge = edge_distance(x, y, lean, thing.size, thing.yaw)
            near = np.flatnonzero(edge < look.soft)
            tone[near] *= np.clip(1 - look.shadow + look.shadow / look.soft * np.maximum(edge[near], 0), 0, 1)
    return tone


def _floor_layers(scene: Scene, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, list[Layer]]:
    """For floor points: number of the buffer within whose line they lie, and what is painted on them."""
    look, paint = scene.look, scene.colors.paint
    numbers, lines = np.zeros(x.shape, np.int32), np.zeros(x.shape, bool)
    for buffer in scene.of_kind("buffer"):
        edge = edge_distance(x, y, buffer.position, buffer.size, buffer.yaw)
        numbers[edge <= look.line] = buffer.number
        lines |= np.abs(edge) <= look.line
    width, depth, _ = scene.room
    aisle = edge_distance(x, y, (0.0, depth / 2), (width - 3.0, depth - 3.0), 0.0)
    aisle = (np.abs(aisle) <= look.line) & (numbers == 0)
    layers: list[Layer] = [(numbers > 0, paint, look.fill)] if look.fill else []
    layers.append((lines | aisle, paint, 1.0))
    if look.hazard:
        layers += [(aisle, HAZARD, 1.0), (aisle & (np.mod(x + y, np.float32(0.5)) < 0.25), DARK, 1.0)]
    if look.plates:
        for number, buffer in enumerate(scene.of_kind("buffer"), 1):
            center = moved(buffer.position, (0.0, -buffer.size[1] / 2 - 0.45), buffer.yaw)
            plate = np.flatnonzero((edge_distance(x, y, center, (PLATE, PLATE), buffer.yaw) < 0) & (numbers == 0))
            dx, dy = x[plate] - np.float32(center[0]), y[plate] - np.float32(center[1])
            cos, sin = np.float32(np.cos(buffer.yaw)), np.float32(np.sin(buffer.yaw))
            scale = np.float32(2 / PLATE)
            stroke = on_digit(number, scale * (cos * dx + sin * dy), scale * (cos * dy - sin * dx))
            layers += [(plate, DARK, 1.0), (plate[stroke], WHITE, 1.0)]
    return numbers, layers


def _wall_tone(scene: Scene, hit: list[np.ndarray], wall: np.ndarray) -> np.ndarray:
    """Cladding above a darker base, under the lamps, float32[N]."""
    x, y, high = (coordinate[wall] for coordinate in hit)
    base, dark = scene.look.base
    tone = np.where(high < base, np.float32(dark), wall_tone(scene.look.wall, x + y, high))
    if scene.look.lamps:
        tone *= look_up(lamp_tone(scene, *grid(scene, COARSE)), scene, COARSE, x, y)
    return tone


def _box_marks(
    scene: Scene, faces: Faces, face: np.ndarray, hit: list[np.ndarray], depth: np.ndarray, focal: float
) -> tuple[np.ndarray, list[Layer]]:
    """Tone float32[N], darker at outlines and seams, which fade where thinner than a pixel; and what is printed on boxes.

    face: int[N], the face each point lies on; hit: its place, metres; depth: metres; focal: pixels.
    """
    cuboid, axis = faces.cuboid[face], faces.axis[face]
    tables = (faces.centers, faces.sizes, np.cos(faces.yaws), np.sin(faces.yaws))
    centers, sizes, cos, sin = (table.astype(np.float32) for table in tables)
    cells = sizes / np.array([box.cells for box in scene.cuboids], np.float32)
    dx, dy, dz = (hit[k] - centers[cuboid, k] for k in range(3))
    turn_cos, turn_sin = cos[cuboid], sin[cuboid]
    # From the box's lower end, half a size from its centre; seams are counted from there.
    local = (turn_cos * dx + turn_sin * dy, turn_cos * dy - turn_sin * dx, dz)
    ends = [place + (sizes[:, k] / 2)[cuboid] for k, place in enumerate(local)]
    nearest = np.full(face.shape, np.inf, np.float32)
    for k, end in enumerate(ends):
        width = cells[cuboid, k]
        gap = np.abs(end - width * np.round(end / width))
        np.copyto(nearest, np.minimum(nearest, gap), where=axis != k)
    half = np.maximum(np.float32(0.012), 0.4 * depth / np.float32(focal))
    strength = np.float32(0.4) * np.minimum(np.float32(0.014) * np.float32(focal) / depth + np.float32(0.25), 1)
    seams = 1 - strength * (nearest < half)
    if not scene.look.prints:
        return seams, []
    points = np.flatnonzero(np.array([box.material == "card" for box in scene.cuboids])[cuboid])
    cuboid, axis, of_face = cuboid[points], axis[points], np.stack([end[points] for end in ends])
    which = cuboid.astype(np.int32) * 131 + axis.astype(np.int32)
    places, extents = [], []
    for chosen in (np.where(axis == 0, 1, 0), np.where(axis == 2, 1, 2)):  # across the face and up it
        extent, end = cells[cuboid, chosen], of_face[chosen, np.arange(points.size)]
        number = np.minimum(np.floor(end / extent), np.round(sizes[cuboid, chosen] / extent) - 1)
        which = which * 7 + number.astype(np.int32)
        places.append(end - (number + np.float32(0.5)) * extent)
        extents.append(extent)
    tape, label, ink = print_marks(scene.look.prints, places[0], places[1], extents, which)
    return seams, [(points[tape], TAPE, 0.6), (points[label], LABEL, 1.0), (points[ink], INK, 0.6)]


def light_map(scene: Scene, cell: float) -> np.ndarray:
    """Tone of the floor under lamps, tyre tracks and shadows on a grid, float32[Y, X]."""
    x, y = grid(scene, cell)
    tone = lamp_tone(scene, x, y)
    for place, heading, gauge in scene.look.marks:
        offset = np.abs((x - np.float32(place)) - np.float32(np.tan(heading)) * y)
        tone[np.abs(offset - np.float32(gauge / 2)) < TRACK] *= np.float32(0.86)
    shade = np.zeros_like(tone)
    # Near the ground every object shades the floor; long beams under the ceiling do not.
    for box in scene.cuboids:
        if box.center[2] - box.size[2] / 2 < 0.3 and min(box.size[:2]) > 0.1:
            _add_shadow(shade, scene, x, y, box)
    return tone * (1 - np.float32(scene.look.shadow) * shade)


def lamp_tone(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even light plus the pools of the lamps at places on the floor, float32 of the broadcast shape."""
    tone = np.full(np.broadcast_shapes(x.shape, y.shape), scene.look.even, np.float32)
    for lamp in scene.look.lamps:
        dx, dy = x - np.float32(lamp.position[0]), y - np.float32(lamp.position[1])
        # 1 / (1 + q)^2 is a quarter at q = 1.
        share = 1 + (dx * dx + dy * dy) * np.float32(1 / lamp.reach**2)
        tone += np.float32(lamp.strength) / (share * share)
    return tone


def look_up(tone: np.ndarray, scene: Scene, cell: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear lookup, in tones on a grid, of floor points within the room, float32[N]."""
    across = (x + np.float32(scene.room[0] / 2 + MARGIN)) * np.float32(1 / cell)
    along = (y + np.float32(MARGIN)) * np.float32(1 / cell)
    left, low = across.astype(np.int32), along.astype(np.int32)
    across -= left
    along -= low
    row = tone.shape[1]
    place = low * row + left
    flat = tone.ravel()
    near, far = flat[place], flat[place + row]
    near += across * (flat[place + 1] - near)
    far += across * (flat[place + row + 1] - far)
    return near + along * (far - near)


def grid(scene: Scene, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns float32[1, X] and rows float32[Y, 1], a cell's size apart, in metres; one more than a lookup needs.

    The first cell's corner is (-room width / 2 - MARGIN, -MARGIN).
    """
    width, depth, _ = scene.room
    x = np.arange(-width / 2 - MARGIN, width / 2 + MARGIN + cell, cell, dtype=np.float32)
    return x[None, :], np.arange(-MARGIN, depth + MARGIN + cell, cell, dtype=np.float32)[:, None]


def _add_shadow(shade: np.ndarray, scene: Scene, x: np.ndarray, y: np.ndarray, box: Cuboid) -> None:
    """A soft shadow round a box's foot, leaning away from the light by the box's height, in place.

    Of two shadows the darker counts, so the boxes of one pallet do not add up to black.
    """
    lean, soft = scene.look.lean * min(box.size[2], 1.5), scene.look.soft
    center = [box.center[k] - lean * scene.light[k] for k in range(2)]
    reach = (box.size[0] + box.size[1]) / 2 + soft
    columns, rows = (
        slice(*np.searchsorted(places.ravel(), (middle - reach, middle + reach)))
        for places, middle in zip((x, y), center)
    )
    outside = edge_distance(x[:, columns], y[rows], center, box.size[:2], box.yaw)
    window = shade[rows, columns]
    np.maximum(window, 1 - np.maximum(outside, 0) / np.float32(soft), out=window)


@functools.lru_cache(maxsize=8)
def grain(seed: int) -> np.ndarray:
    """A tile of noise whose amplitude falls with frequency, float32[TEXELS, TEXELS], mean 0, deviation 1."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.rfftfreq(TEXELS)[None, :]) * TEXELS
    spectrum = np.fft.rfft2(rng.normal(size=(TEXELS, TEXELS))) / (frequency + 3)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(TEXELS, TEXELS))
    return (noise / noise.std()).astype(np.float32)


def floor_grain(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The noise at floor points, float32[N]; it repeats every TEXELS * TEXEL metres."""
    column, row = ((place * np.float32(1 / TEXEL)).astype(np.int32) & (TEXELS - 1) for place in (x, y))
    return grain(seed % 8).ravel()[row * TEXELS + column]


def wall_tone(kind: str, along: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tone of a wall's upper part, of a kind of look.WALLS, at metres along the floor's edge and above it, float32[N]."""
    if kind == "plaster":
        return np.ones_like(high)
    if kind == "panels":
        joint = (np.abs(np.mod(along, np.float32(2.4)) - 1.2) < 0.03) | (np.mod(high, np.float32(1.2)) < 0.04)
        return np.where(joint, np.float32(0.84), np.float32(1))
    if kind == "blocks":
        course = np.floor(high * np.float32(1 / 0.4))
        shifted = along + np.float32(0.4) * np.mod(course, 2)
        joint = (np.mod(high, np.float32(0.4)) < 0.025) | (np.mod(shifted, np.float32(0.8)) < 0.025)
        return np.where(joint, np.float32(0.86), np.float32(1))
    return 1 + np.float32(0.05) * np.sin(np.float32(9.0) * along)


def on_digit(number: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of a plate (-1 to 1) lie on a stroke of its number, bool[N]."""
    strokes = [(x > left) & (x < right) & (y > low) & (y < high) for left, low, right, high in DIGITS[number]]
    return np.logical_or.reduce(strokes)


def print_marks(
    share: float, across: np.ndarray, up: np.ndarray, size: Sequence[np.ndarray], which: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is stuck and printed on a share of the cardboard faces: bool[N] each, on tape, on a paper label, on printed ink.

    Args:
      across, up: float32[N], metres from the middle of the face, or of its cell.
      size: width and height of the cell, float32[N] each.
      which: int32[N], a number of the cell, which decides what it has.
    """
    code = (which * 1103515245 + 12345) >> 8
    printed = (code & 255) < 256 * share
    tape = (np.abs(across) < 0.03) & ((code & 512) > 0)
    side = np.where(code & 1024, np.float32(1), np.float32(-1))
    x, y = across * side - size[0] / 4, up - size[1] / 5
    label = (np.abs(x) < 0.07) & (np.abs(y) < 0.05) & ((code & 2048) > 0)
    x, y = across * side + size[0] / 4, up + size[1] / 6
    rows = np.mod(y, np.float32(0.05)) < 0.025
    ink = (np.abs(x) < np.minimum(0.12, size[0] / 6)) & (np.abs(y) < np.minimum(0.09, size[1] / 5)) & rows
    ink &= np.mod(x + np.float32(0.011) * which, np.float32(0.037)) < 0.026
    return printed & tape, printed & label & ~tape, printed & ink & ((code & 4096) > 0) & ~label
