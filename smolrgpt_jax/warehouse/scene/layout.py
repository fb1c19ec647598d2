"""Warehouse scenes: what stands where, drawn where the camera sees it. A scene is a function of its generator's state."""

import dataclasses
import math

import numpy as np

from smolrgpt_jax.warehouse.parameters import FEWEST_PALLETS, WarehouseConfig
from smolrgpt_jax.warehouse.scene import clutter, objects
from smolrgpt_jax.warehouse.scene.geometry import Camera, Point, Vector, moved
from smolrgpt_jax.warehouse.scene.look import Colors, Look, draw_colors, draw_look, dress, plain_colors, vary_camera
from smolrgpt_jax.warehouse.scene.objects import Color, Cuboid, Rng, Thing, pick, placer, tinted

ASPECT = 9 / 16  # height by width of the published pictures; taller pictures show more
NEAREST = 2.2  # metres ahead of the camera's ground point where objects begin
EMPTY_BUFFER = 0.03  # share of scenes whose counted buffer is empty: rare, as published
CLEAR_CHOICE = 1.15  # how much farther from the empty transporter the second closest pallet is
GAP = 0.2  # metres between footprints


@dataclasses.dataclass(frozen=True)
class Scene:
    """A closed room with things and clutter."""

    things: tuple[Thing, ...]  # what can be asked about; things[i].number == i + 1
    cuboids: tuple[Cuboid, ...]  # everything that stands
    camera: Camera
    room: Vector  # width (x from -width/2), depth (y from 0) and height, metres
    colors: Colors
    light: Vector  # unit vector towards the light
    ambient: float  # share of light that has no direction
    tint: Color  # factor for each colour channel
    texture_seed: int  # of stains on floor and walls
    counted: int  # number of the buffer in which the number of pallets is uniform
    look: Look = Look()

    def of_kind(self, kind: str) -> list[Thing]:
        """The things of one kind, by number."""
        return [thing for thing in self.things if thing.kind == kind]

    def half_inside(self, clear_lines: bool) -> list[Thing]:
        """The pallets, and with `clear_lines` the other things, that lie partly within a buffer: in or out is in doubt."""
        kinds, buffers = ("pallet", "transporter", "shelf") if clear_lines else ("pallet",), self.of_kind("buffer")
        return [thing for thing in self.things if thing.kind in kinds and any(map(thing.is_half_inside, buffers))]


def make_scene(rng: Rng, config: WarehouseConfig = WarehouseConfig()) -> Scene:
    """Draws a scene: buffers with pallets, pallets beside them, transporters, shelves, clutter.

    At most one transporter is empty, and one pallet is clearly the closest to it. Pallets are placed inside or outside of buffers;
    the few that reach over a line all the same are for `half_inside` to find. The number of pallets in the counted buffer is
    uniform over 1 to 4, whatever their total.
    """
    room = (rng.uniform(15, 21), rng.uniform(15, 21), rng.uniform(7.5, 9.0))
    camera = _camera(rng, room, config.camera_variety)
    variety = config.appearance_variety
    # A child of the seed: what is drawn with it takes nothing from the stream of all other draws.
    look_rng = rng.spawn(1)[0] if variety else None
    if look_rng is not None:
        camera = vary_camera(look_rng, camera, room, variety * config.camera_variety)
    builder = Builder(rng, room, camera, config)
    counted = builder.place_buffers()
    builder.place_shelves()
    builder.place_transporters()
    builder.place_furniture()
    grey = rng.uniform(0.34, 0.56)
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.4), 1.0])
    wall, warmth = rng.uniform(0.60, 0.92), rng.uniform(-0.06, 0.06)
    scene = Scene(
        things=tuple(builder.things),
        cuboids=tuple(builder.cuboids),
        camera=camera,
        room=room,
        colors=plain_colors(rng, grey, wall),
        light=tuple((light / np.linalg.norm(light)).tolist()),
        ambient=rng.uniform(0.5, 0.7),
        tint=(1 + warmth, 1.0, 1 - warmth),
        texture_seed=int(rng.integers(2**31)),
        counted=counted,
    )
    if look_rng is None:
        return scene
    builder.add_clutter(look_rng)
    return dataclasses.replace(
        scene,
        cuboids=tuple(dress(look_rng, builder.cuboids, variety)),
        look=draw_look(look_rng, room, variety),
        colors=draw_colors(look_rng, scene.colors, variety),
    )


def _camera(rng: Rng, room: Vector, variety: float) -> Camera:
    """High up by the front wall, looking down at a point in the middle of the floor."""

    def about_middle(low: float, high: float) -> float:
        spare = (1 - variety) * (high - low) / 2
        return rng.uniform(low + spare, high - spare)

    width, depth, _ = room
    x, y, z = rng.uniform(-0.3, 0.3) * width, rng.uniform(0.4, 2.0), about_middle(3.6, 6.8)
    reach = about_middle(5.0, min(8.5, 2.2 * z))
    target = rng.uniform(-0.12, 0.12) * width - 0.3 * x, min(y + reach, 0.6 * depth)
    pitch = math.atan2(z, math.dist((x, y), target))
    return Camera((x, y, z), math.atan2(target[0] - x, target[1] - y), pitch, about_middle(0.58, 0.80))


class Builder:
    """Collects a scene's objects and keeps their footprints, taken as circles, apart."""

    def __init__(self, rng: Rng, room: Vector, camera: Camera, config: WarehouseConfig):
        self.rng, self.room, self.camera, self.config = rng, room, camera, config
        self.things: list[Thing] = []
        self.cuboids: list[Cuboid] = []
        self.taken: list[tuple[Point, float]] = []

    def add(self, kind: str, at: Point, yaw: float, size: Point, radius: float = 0.0, carrying: bool = False) -> Thing:
        """Adds a thing and its cuboids; `radius` of the floor round it is then taken."""
        thing = Thing(len(self.things) + 1, kind, at, yaw, size, carrying)
        if kind in objects.DRAWN:
            self.cuboids += objects.DRAWN[kind](self.rng, placer(at, yaw, thing.number), thing)
        self.things.append(thing)
        if radius:
            self.taken.append((at, radius))
        return thing

    def of_kind(self, kind: str) -> list[Thing]:
        """The things of one kind, by number."""
        return [thing for thing in self.things if thing.kind == kind]

    def is_free(self, position: Point, radius: float) -> bool:
        """Whether a circle on the floor keeps its distance from all that stands."""
        return all(math.dist(position, other) > radius + taken + GAP for other, taken in self.taken)

    def in_room(self, position: Point, margin: float) -> bool:
        """Whether a place is that many metres away from every wall."""
        width, depth, _ = self.room
        return abs(position[0]) < width / 2 - margin and margin < position[1] < depth - margin

    def sees(self, position: Point, height: float = 0.3, margin: float = 0.04) -> bool:
        """Whether a point above the floor is in the picture, by a margin in picture widths."""
        across, down, depth = self.camera.project(np.array([[*position, height]]))[0]
        inside = abs(across) < 0.5 - margin and abs(down) < ASPECT / 2 - margin
        return depth > 0 and self.is_ahead(position) and inside

    def is_ahead(self, position: Point) -> bool:
        return self.camera.on_floor(position)[0] > NEAREST

    def outside_buffers(self, place: Point, margin: float) -> bool:
        """Whether a place is outside of all buffers, each widened by a margin in metres."""
        return not any(buffer.holds(place, margin) for buffer in self.of_kind("buffer"))

    def has_clear_choice(self, place: Point) -> bool:
        """Whether one pallet is clearly closer to a place than all others."""
        distances = sorted(math.dist(place, pallet.position) for pallet in self.of_kind("pallet"))
        return len(distances) > 1 and distances[1] > CLEAR_CHOICE * distances[0]

    def seen_place(self, radius: float) -> Point | None:
        """A free place on the floor that the camera sees, or None if the draw gives none.

        Half of the draws are uniform in the picture, which favours the foreground, half on the floor, which favours the background.
        """
        rng = self.rng
        if rng.random() < 0.5:
            place = self.camera.floor_point(rng.uniform(-0.46, 0.46), rng.uniform(-0.46, 0.46) * ASPECT)
        else:
            place = self._anywhere(rng)
        if place is None or not self.in_room(place, 1.2) or not self.sees(place) or not self.is_free(place, radius):
            return None
        return place

    def place_buffers(self) -> int:
        """Places buffers and pallets; returns the number of the buffer in which counts are uniform."""
        rng, config = self.rng, self.config
        wanted = min(int(rng.choice([1, 2, 3], p=[0.1, 0.3, 0.6])), config.max_buffers)
        middle = self.camera.floor_point(0.0, 0.0)
        assert middle is not None
        for attempt in range(400):
            number = max(wanted - attempt // 40, 1)  # fewer where so many do not fit into the view
            size, step, slots = _buffer_shape(rng)
            center = (middle[0] + rng.normal(0, 0.6), middle[1] + rng.normal(0, 0.8))
            yaw = rng.normal(0, 0.12) - self.camera.yaw * rng.uniform(0, 1)
            offsets = [i - (number - 1) / 2 for i in range(number)]
            places = [moved(center, (offset * step[0], offset * step[1]), yaw) for offset in offsets]
            filled = [[moved(place, slot, yaw) for slot in slots] for place in places]
            if all(self.sees(slot) and self.in_room(slot, 1.0) for group in filled for slot in group):
                break
        buffers = [self.add("buffer", place, yaw, size) for place in places]
        total = int(rng.integers(FEWEST_PALLETS, config.max_pallets + 1))
        counted = int(rng.integers(number))
        counts = [0] * number
        # Drawn before and independently of all others, so a question's length tells nothing about it.
        counts[counted] = 0 if rng.random() < EMPTY_BUFFER else int(rng.integers(1, 5))
        left = total - counts[counted]
        for other in rng.permutation([i for i in range(number) if i != counted]):
            counts[other] = int(rng.integers(0, min(4, left) + 1))
            left -= counts[other]
        for group, count in zip(filled, counts):
            for slot in rng.permutation(4)[:count]:
                place = moved(group[slot], rng.normal(0, 0.05, 2).tolist(), yaw)
                turn = yaw + rng.normal(0, 0.08) + (math.pi / 2 if size[0] > 4 else 0.0)
                self.add("pallet", place, turn, objects.PALLET[:2], 0.65)
        for _ in range(100 * left):
            if left == 0:
                break
            found = self.seen_place(0.75)
            if found is not None and self.outside_buffers(found, 0.85):
                self.add("pallet", found, rng.uniform(0, math.pi), objects.PALLET[:2], 0.7)
                left -= 1
        return buffers[counted].number

    def place_transporters(self) -> None:
        """Transporters well inside or well outside of buffers; all but one carry a pallet."""
        rng = self.rng
        wanted = min(int(rng.choice([0, 1, 2, 3], p=[0.03, 0.17, 0.35, 0.45])), self.config.max_transporters)
        made, empty = 0, int(rng.integers(max(wanted, 1)))
        for _ in range(120):
            if made == wanted:
                return
            place = self.seen_place(0.7)
            if place is None or (made == empty and not self.has_clear_choice(place)):
                continue
            if self.outside_buffers(place, 0.7) or not self.outside_buffers(place, -0.5):
                yaw = rng.uniform(0, math.pi)
                self.add("transporter", place, yaw, objects.TRANSPORTER[:2], 0.7, carrying=made != empty)
                made += 1

    def place_shelves(self) -> None:
        """Racks along the walls or standing free at the sides, wherever their middle is in view."""
        rng, (width, depth, _) = self.rng, self.room
        wanted = min(int(rng.choice([0, 1, 2], p=[0.1, 0.4, 0.5])), self.config.max_shelves)
        for _ in range(150):
            if wanted == 0:
                return
            length, wall = rng.uniform(2.0, 3.6), rng.integers(4)
            if wall == 0:
                place, yaw = (rng.uniform(-0.5, 0.5) * (width - length), depth - 0.7), 0.0
            elif wall < 3:
                place, yaw = ((-1, 1)[wall - 1] * (width / 2 - 0.7), rng.uniform(3, depth - 2)), math.pi / 2
            else:
                place, yaw = (rng.uniform(-0.4, 0.4) * width, rng.uniform(5, depth - 2)), rng.uniform(0, math.pi)
            ends = [moved(place, (share * length / 2, 0.0), yaw) for share in (-0.7, 0.0, 0.7)]
            free = all(self.is_free(end, 0.6) and self.outside_buffers(end, 0.6) for end in ends)
            if free and self.sees(place, 1.0, 0.03):
                self.add("shelf", place, yaw, (length, 0.9))
                self.taken += [(end, 0.6) for end in ends]
                wanted -= 1

    def place_furniture(self) -> None:
        """Things along the walls and a few on the floor that no question is about."""
        rng = self.rng
        for _ in range(int(rng.integers(3, 8))):
            place: Point | None
            if rng.random() < 0.6:
                place, yaw = self._at_a_wall(rng, 0.6)
                yaw = abs(yaw) % math.pi  # along the wall
            else:
                place, yaw = self.seen_place(0.75), rng.uniform(0, math.pi)
            if place is not None:
                self._stand(rng, clutter.furniture, place, 0.75, 0.6, yaw)

    def add_clutter(self, rng: Rng) -> None:
        """Adds things on the floor, on the walls and, seldom, one in front of the camera.

        Half of what stands free is put on the camera's side of a pallet, so that it may hide a part
        of it. Nothing stands in a buffer.
        """
        variety = self.config.appearance_variety
        for _ in range(int(rng.integers(3, 12) * variety)):
            draw, radius, _ = clutter.FREE[rng.choice(len(clutter.FREE), p=[share for *_, share in clutter.FREE])]
            place = self._in_front_of_a_pallet(rng) if rng.random() < 0.5 else self._anywhere(rng)
            if self.in_room(place, radius + 0.2):
                self._stand(rng, draw, place, radius, radius + 0.05)
        for _ in range(int(rng.integers(2, 9) * variety)):
            self.cuboids += clutter.on_wall(rng, placer(*self._at_a_wall(rng, 0.0)), self.room[2])
        if rng.random() < 0.12 * variety:
            self._hang(rng)

    def _stand(
        self, rng: Rng, draw: clutter.Draw, at: Point, radius: float, margin: float, yaw: float | None = None
    ) -> None:
        """Puts something on the floor if it may stand there, that margin away from buffers; turned at random unless told."""
        if self.is_free(at, radius) and self.outside_buffers(at, margin) and self.is_ahead(at):
            self.cuboids += draw(rng, placer(at, rng.uniform(0, math.pi) if yaw is None else yaw))
            self.taken.append((at, radius))

    def _at_a_wall(self, rng: Rng, gap: float) -> tuple[Point, float]:
        """A place at the back or a side wall, some metres away from it, and the turn that faces the room."""
        width, depth, _ = self.room
        wall, along = rng.integers(3), rng.uniform(-0.45, 0.45)
        if wall == 0:
            return (along * width, depth - gap), math.pi
        side = (-1, 1)[wall - 1]
        return (side * (width / 2 - gap), (along + 0.5) * depth), side * math.pi / 2

    def _anywhere(self, rng: Rng) -> Point:
        width, depth, _ = self.room
        return rng.uniform(-0.5, 0.5) * width, rng.uniform(0, depth)

    def _in_front_of_a_pallet(self, rng: Rng) -> Point:
        pallets = self.of_kind("pallet")
        if not pallets:
            return self._anywhere(rng)
        x, y = pick(rng, pallets).position
        eye = self.camera.position
        toward, gap = math.atan2(eye[1] - y, eye[0] - x) + rng.normal(0, 0.4), rng.uniform(1.1, 1.8)
        return x + gap * math.cos(toward), y + gap * math.sin(toward)

    def _hang(self, rng: Rng) -> None:
        """A pole with a hook that hangs into the left or right side of the picture, near the camera."""
        camera, side = self.camera, 1 if rng.random() < 0.5 else -1
        ahead, aside = rng.uniform(1.6, 2.6), side * rng.uniform(0.38, 0.47) / camera.focal
        x, y, z = (camera.position + ahead * (camera.axes[2] + aside * camera.axes[0])).tolist()
        low = z - rng.uniform(0.0, 0.6)
        # Its upper end leaves the picture and stays in front of the camera, whose view is tilted down.
        high = min(self.room[2] - 0.1 - low, (ahead - 0.6) / math.sin(camera.pitch))
        wide = rng.uniform(0.06, 0.12)
        place = placer((x, y), camera.yaw)
        self.cuboids += [
            place((0, 0, low), (wide, wide, high), tinted(rng, clutter.POLE, 0.3)),
            place((0, 0, low - 0.1), (0.16, 0.12, 0.1), tinted(rng, clutter.YELLOW, 0.2)),
        ]


def _buffer_shape(rng: Rng) -> tuple[Point, Point, list[Point]]:
    """Shape of the buffers: size, step from one to the next, and the four places for pallets."""
    style, gap = rng.integers(3), rng.uniform(0.7, 1.6)
    if style == 0:  # long ones, one behind the other
        size = (rng.uniform(5.6, 6.4), rng.uniform(1.8, 2.2))
        return size, (0.0, size[1] + gap), [((i - 1.5) * size[0] * 0.23, 0.0) for i in range(4)]
    if style == 1:  # long ones side by side
        size = (rng.uniform(1.9, 2.3), rng.uniform(5.4, 6.2))
        return size, (size[0] + gap, 0.0), [(0.0, (i - 1.5) * size[1] * 0.23) for i in range(4)]
    size = (rng.uniform(2.9, 3.3), rng.uniform(2.9, 3.3))
    places = [(i * size[0] * 0.22, j * size[1] * 0.22) for i in (-1, 1) for j in (-1, 1)]
    return size, (size[0] + gap, 0.0) if rng.random() < 0.6 else (0.0, size[1] + gap), places
