"""A painting-like picture without a painter: an evening sun, wind and hills in thick brush strokes.

First a sketch is made: for every point its colour, the direction of the brush, and the object that
it belongs to. Then strokes are laid from broad to fine, each bent along the directions, in two
badly mixed pigments, with the marks of bristles and dry ends, and never beyond its object. The
thickness of the paint is kept beside its colour, and at last lit from the upper left.

Positions in the sketch are in units of the picture's height, y downwards.
"""

import numpy as np

from pictures.noise import blend_colors, fractal_noise, gradient_noise, mix, smoothstep

WIDTH, HEIGHT = 640, 512
OVERSAMPLING = 2

# Whirls of the sky: middle x and y, radius, sense of turning. The first is the sun.
WHIRLS = (
    (0.93, 0.235, 0.17, 1),
    (0.47, 0.26, 0.15, -1),
    (0.68, 0.45, 0.075, 1),
    (0.10, 0.10, 0.09, 1),
    (1.20, 0.47, 0.08, -1),
)
# Chains of hills: height in the picture, height of the waves, their number and shift.
RIDGES = ((0.60, 0.045, 4.2, 0.4), (0.66, 0.035, 5.0, 2.4), (0.735, 0.030, 3.6, 4.4))
HEDGES = ((1, 0.66, 1.2, 0.0), (2, 0.36, 0.72, 0.0), (2, 1.02, 1.24, 0.012), (2, 0.5, 0.8, 0.045))
POPLARS = ((0.345, 0.80, 0.33), (0.085, 0.83, 0.50), (0.215, 0.89, 0.74))  # x, foot, height.
VANISHING = (0.78, 0.62)  # Where the furrows of the field meet.


def palette(codes: str) -> np.ndarray:
    """Hexadecimal colours, separated by blanks, as `[colours, 3]` in 0 to 1."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255.0


def ramp(value: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colour at `value`, 0 to 1, along evenly spaced `colors`."""
    place = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(value, place, colors[:, k]) for k in range(3)], -1)


SKY = palette("0d1b4c 15327a 1d56a8 2f86bd 7cc0c4 d8e3bd")
SUNLIGHT = palette("fff3b0 ffd94a ffb01f f4801c d9582a 8fa9a0 2f7fb0")
WHIRL = palette("fdf3c8 f0d070 8cc8c0 3f8fc4 1d4f9c")
HILLS = (
    palette("27418f 3d5fae 6f8fc7 8d7fb8"),
    palette("1c3f6e 23706f 4f9a72 a3b65a"),
    palette("17394a 2a6a4a 6d9440 c9b23c"),
)
FIELD = palette("7a3b1e b8651b dc9422 f2bf3b ffe07a")
FOLIAGE = palette("121b3d 17403f 3f6630 a8821f ee9a22 ffcb4f")
BUSH = palette("10264a 1c5148 4f8a3c b9b83e")
GROUND, GLOW, FURROW, GRASS, TRUNK = palette("a8743c ffc95a 3b2a6b 6f8f2e 2b1c38")
PLASTER, SHADE, TILE, LIT_TILE, CHIMNEY, PANE = palette("f3ead0 8fa5cc b52a1c f4803a 7a2a2a 24356b")
INK, LIT_INK, POPPY, LIT_POPPY = palette("14183f 2a2f7a d8261c f2622a")


class Sketch:
    """What is to be painted, pixel by pixel.

    `color`; `angle`, the direction of the brush in radians; `part`, the number of the object;
    `detail`, the share of fine strokes; `drawn`, the number of the object if it gets an outline.
    """

    def __init__(self, width: int, height: int, seed: int):
        x, y = (np.arange(width) + 0.5) / height, (np.arange(height) + 0.5) / height
        self.x, self.y = np.meshgrid(x, y)
        self.color = np.zeros((height, width, 3))
        self.angle, self.detail = np.zeros((height, width)), np.zeros((height, width))
        self.part, self.drawn = np.zeros((height, width), int), np.zeros((height, width), int)
        self.seed, self.parts = seed, 0

    def lay(self, mask, color, angle, *, detail: float | np.ndarray = 1.0, outlined=False) -> None:
        """Lay an object over what is there."""
        self.parts += 1
        self.color[mask] = np.broadcast_to(color, self.color.shape)[mask]
        self.angle[mask] = np.broadcast_to(angle, mask.shape)[mask]
        self.detail[mask] = np.broadcast_to(detail, mask.shape)[mask]
        self.part[mask] = self.parts
        self.drawn[mask] = self.parts if outlined else 0

    def noise(self, across: float, down: float, number: int) -> np.ndarray:
        """Noise with so many bumps across and down a picture's height."""
        return gradient_noise(across * self.x, down * self.y, seed=self.seed + number)


def sketch_sky(s: Sketch) -> None:
    """Sketch the wind that rolls around a spiral sun and smaller whirls."""
    x, y = s.x, s.y
    bands = y + 0.05 * np.sin(4.6 * x + 0.8)
    bands = bands + 0.05 * fractal_noise(2.2 * x, 2.2 * y, octaves=2, seed=s.seed + 1)
    wind_x, wind_y = np.ones_like(x), 0.23 * np.cos(4.6 * x + 0.8)
    for middle_x, middle_y, radius, turn in WHIRLS:
        dx, dy = x - middle_x, y - middle_y
        r = np.hypot(dx, dy) + 1e-6
        pull = 9.0 * np.exp(-((r / (1.25 * radius)) ** 2)) / r
        wind_x += pull * (-turn * dy - 0.25 * dx)  # Around the middle, and a little inwards.
        wind_y += pull * (turn * dx - 0.25 * dy)
        bands += 1.2 * radius * np.exp(-((r / (1.6 * radius)) ** 2))
    bands = (0.5 + 0.5 * np.sin(34 * bands + 2.5 * s.noise(1.5, 3, 3))) ** 1.5
    color = ramp(0.42 * bands + 0.75 * y + 0.10 * s.noise(3, 3, 4), SKY)

    for k, (middle_x, middle_y, radius, turn) in enumerate(WHIRLS):
        dx, dy = x - middle_x, y - middle_y
        r = np.hypot(dx, dy) / radius
        spiral = 0.5 * np.sin(turn * np.arctan2(dy, dx) * 2 + 11 * r - 1.0)
        if k == 0:
            tint = ramp(r / 1.25 + 0.16 * spiral * smoothstep(0.25, 0.5, r), SUNLIGHT)
            color = blend_colors(color, tint, smoothstep(1.45, 0.85, r + 0.35 * spiral))
        else:
            tint = ramp(r / 1.1 + 0.30 * spiral, WHIRL)
            color = blend_colors(color, tint, smoothstep(1.3, 0.7, r + 0.3 * spiral))
    near_sun = np.exp(-(((x - WHIRLS[0][0]) ** 2 + (y - WHIRLS[0][1]) ** 2) / 0.42**2))
    color = blend_colors(color, GLOW, 0.35 * near_sun * bands)
    everywhere = np.ones(x.shape, bool)
    angle = np.arctan2(wind_y, wind_x)
    s.lay(everywhere, color, angle, detail=0.2 + 0.8 * near_sun, outlined=True)


def ridge(x, base: float, height: float, waves: float, shift: float) -> np.ndarray:
    """The outline of a chain of hills."""
    return base - height * (np.sin(waves * x + shift) + 0.4 * np.sin(2.3 * waves * x + 2 * shift))


def sketch_hills(s: Sketch) -> None:
    """Sketch three chains of hills, striped along their slopes, with hedges."""
    for k, shape in enumerate(RIDGES):
        outline = ridge(s.x, *shape)
        below = s.y - outline
        slope = np.gradient(outline, axis=1) / np.gradient(s.x, axis=1)
        angle = np.arctan2(slope + 3.0 * np.sin(9 * s.x + 3 * k) * below, 1.0)
        stripes = 0.5 + 0.5 * np.sin(60 * below + 9 * s.noise(3, 3, 10 + k))
        sunny = smoothstep(0.2, 1.1, s.x + 0.4 * s.noise(3, 5, 20 + k))
        light = 0.75 * sunny + 0.35 * stripes - 1.2 * below
        s.lay(below > 0, ramp(light, HILLS[k]), angle, detail=0.35, outlined=True)


def sketch_hedges(s: Sketch) -> None:
    """Sketch rows of round bushes, lit from the right, their leaves whirling."""
    rng = np.random.default_rng(s.seed + 70)
    for row, start, end, down in HEDGES:
        for x in np.arange(start, end, 0.034):
            radius = rng.uniform(0.011, 0.021)
            dx = (s.x - x - rng.uniform(-0.01, 0.01)) / radius
            dy = (s.y - ridge(s.x, *RIDGES[row]) - down) / radius
            light = 0.40 + 0.35 * dx - 0.35 * dy + rng.uniform(-0.15, 0.15)
            s.lay(np.hypot(dx, 1.15 * dy) < 1, ramp(light, BUSH), np.arctan2(dx, -dy), detail=0.8)


def sketch_field(s: Sketch) -> None:
    """Sketch the field, its furrows bent and meeting at the vanishing point."""
    dx, dy = s.x - VANISHING[0], s.y - VANISHING[1]
    dx = dx + 0.25 * np.sin(5 * dy) * dy
    rows = 0.5 + 0.5 * np.sin(26 * np.arctan2(dx, dy))
    furrow = smoothstep(0.22, 0.0, rows)
    color = ramp(0.15 + 0.62 * rows + 0.25 * s.noise(5, 9, 30), FIELD)
    color = blend_colors(color, FURROW, 0.75 * furrow)
    color = blend_colors(
        color, GRASS, 0.6 * smoothstep(0.15, 0.45, s.noise(4, 4, 31)) * (1 - furrow)
    )
    field = s.y > ridge(s.x, 0.80, 0.016, 4.0, 1.0)
    s.lay(field, color, np.arctan2(dy, dx), detail=0.3, outlined=True)


def sketch_house(s: Sketch, middle_x: float, middle_y: float, size: float) -> None:
    """Sketch a white farmhouse with a red roof; the brush follows its edges."""
    x, y = (s.x - middle_x) / size, (s.y - middle_y) / size
    gable = (np.abs(x + 0.55) < 0.5) & (y < 0.35) & (y > 1.3 * np.abs(x + 0.55) - 1.1)
    wall = (x >= -0.05) & (x < 1.15) & (y > -0.5) & (y < 0.35)
    down = (y + 1.16) / 0.72  # 0 at the ridge of the roof, 1 at its eaves.
    roof = (down > 0) & (down < 1) & (x > 0.55 * down - 0.58) & (x < 0.90 + 0.35 * down)
    s.lay(wall, PLASTER, 0.0)
    s.lay(gable, SHADE, np.pi / 2)
    s.lay(roof, blend_colors(TILE, LIT_TILE, smoothstep(-0.6, 1.3, x + 0.4 * down)), 1.0)
    # Chimney, two windows, door, window of the gable: middle and half-sizes.
    s.lay((np.abs(x - 0.62) < 0.09) & (np.abs(y + 1.22) < 0.22), CHIMNEY, np.pi / 2)
    openings = ((0.2, -0.08, 0.11, 0.16), (0.9, -0.08, 0.11, 0.16), (0.55, 0.08, 0.12, 0.27))
    for at_x, at_y, half_x, half_y in (*openings, (-0.55, -0.2, 0.11, 0.2)):
        s.lay((np.abs(x - at_x) < half_x) & (np.abs(y - at_y) < half_y), PANE, np.pi / 2)


def sketch_poplar(s: Sketch, x: float, foot: float, height: float, k: int) -> None:
    """Sketch a tall flame of a tree that bends in the wind, golden towards the sun."""
    t = (foot - s.y) / height  # 0 at the foot, 1 at the top.
    bend = (0.05 * np.sin(5.5 * t + 1.7 * k) + 0.03 * np.sin(11 * t + k)) * t
    across = (s.x - x) / height - bend
    spread = 0.165 * np.clip(t - 0.045, 0, 1) ** 0.55 * np.clip(1.03 - t, 0, 1) ** 0.75
    ragged = s.noise(14, 9, 40 + k) + 0.6 * np.sin(38 * t - 30 * np.abs(across) + k)
    side = across / np.maximum(spread * (1 + 0.26 * ragged), 1e-3)
    licks = np.sin(26 * t - 3.5 * np.abs(side) + 4 * s.noise(9, 7, 50 + k))
    light = 0.42 + 0.36 * side + 0.22 * licks + 0.10 * t
    upward = -np.pi / 2 + 0.65 * side + 0.30 * np.sin(12 * t + 2 * k)
    s.lay((np.abs(across) < 0.016) & (t > -0.01) & (t <= 0.14), TRUNK, np.pi / 2)
    crown = (np.abs(side) < 1) & (t > 0.05) & (t < 1.02)
    s.lay(crown, ramp(light, FOLIAGE), upward, detail=0.9, outlined=True)


def make_sketch(width: int, height: int, seed: int) -> Sketch:
    """Compose the picture from back to front."""
    s = Sketch(width, height, seed)
    sketch_sky(s)
    sketch_hills(s)
    sketch_field(s)
    sketch_hedges(s)
    sketch_house(s, 0.90, 0.725, 0.066)
    for k, (x, foot, height_of_tree) in enumerate(POPLARS):
        sketch_poplar(s, x, foot, height_of_tree, k)
    return s


class Canvas:
    """Paint: its colour, and its thickness in units of about one stroke.

    Lengths and widths of strokes are in pixels of the picture at scale 1.
    """

    def __init__(self, sketch: Sketch, scale: float, rng: np.random.Generator):
        self.sketch, self.scale, self.rng = sketch, scale, rng
        self.height, self.width = sketch.part.shape
        # A thin underpainting shows where no stroke happens to fall.
        self.color = mix(GROUND, sketch.color, 0.7).astype(np.float32)
        self.thickness = np.zeros((self.height, self.width), np.float32)
        # Streaks that bristles leave: long in x, fine in y.
        x, y = np.meshgrid(np.arange(512), np.arange(512))
        self.streaks = fractal_noise(x / 90, y / 5, octaves=3, seed=sketch.seed + 60, gain=0.7)

    def look_up(self, values: np.ndarray, position: np.ndarray) -> np.ndarray:
        """`values` at `[..., 2]` fractional positions (column, row), held at the edges."""
        column = np.clip(position[..., 0], 0, self.width - 1).astype(int)
        row = np.clip(position[..., 1], 0, self.height - 1).astype(int)
        return values[row, column]

    def follow(self, starts, angles, length: float, steps: int) -> np.ndarray:
        """Paths along `angles` from the middles `starts` both ways: `[strokes, steps, 2]`."""
        halves = []
        for sign in (-1, 1):
            position, heading, trail = starts, self.look_up(angles, starts), []
            for _ in range(steps // 2):
                # A brush direction has no sign: of the two, go on in the one more like the last.
                turn = self.look_up(angles, position) - heading
                turn = np.arctan2(np.sin(2 * turn), np.cos(2 * turn)) / 2
                heading = heading + 0.5 * turn
                step = sign * length / steps
                position = position + step * np.stack([np.cos(heading), np.sin(heading)], -1)
                trail.append(position)
            halves.append(trail[::sign])
        return np.stack(halves[0] + halves[1], 1)

    def stroke(
        self, starts, colors, second, *, length, width, load, angles=None, parts=None
    ) -> None:
        """Lay strokes with the middles `starts`, `[strokes, 2]`, each over the ones before it.

        Their pigments are `colors` and `second`, `[strokes, 3]`; `load` is the thickness of the
        paint. They follow `angles` and keep to one of `parts`, which are the sketch's by default.
        """
        count, rng = len(starts), self.rng
        length, width = length * self.scale, width * self.scale
        angles = self.sketch.angle if angles is None else angles
        parts = self.sketch.part if parts is None else parts
        # Close enough together that no pixel under a stroke is missed.
        u = np.linspace(0, 1, max(6, int(1.6 * length)))[:, None]  # From the start to the end.
        v = np.linspace(-1, 1, max(3, int(1.6 * width)))  # From side to side.
        position = self.ribbon(self.follow(starts, angles, length, 12), u, v, width)

        along = (rng.integers(0, 512, (count, 1, 1)) + np.arange(len(u))[:, None]) % 512
        across = np.linspace(0, width, len(v)).astype(int)
        across = (rng.integers(0, 512, (count, 1, 1)) + across) % 512
        bristle = self.streaks[across, along]
        mixing = smoothstep(0.0, 0.5, self.streaks[(2 * across + 91) % 512, (along + 207) % 512])
        dry = bristle < -0.75 + 0.95 * u**4 + 0.35 * np.abs(v) ** 6
        inside = self.look_up(parts, position) == self.look_up(parts, starts)[:, None, None]
        column, row = np.moveaxis(np.floor(position).astype(int), -1, 0)
        on_canvas = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        kept = inside & on_canvas & ~dry

        paint = blend_colors(colors[:, None, None], second[:, None, None], mixing)
        paint *= 1 + 0.22 * bristle[..., None]
        # The brush pushes paint to the sides and leaves most where it touches down.
        rim = np.exp(-(((1 - np.abs(v)) / 0.22) ** 2)) + 0.6 * np.exp(-((u / 0.06) ** 2))
        thickness = load * (0.55 + 0.75 * bristle + 0.45 * rim) * (1 - 0.5 * u)
        thickness += rng.uniform(0, 0.3, (count, 1, 1))
        # Of equal indices the last one stays: the later stroke.
        self.color[row[kept], column[kept]] = paint[kept]
        self.thickness[row[kept], column[kept]] = thickness[kept]

    def ribbon(self, path, u, v, width: float) -> np.ndarray:
        """Widen paths `[strokes, knots, 2]` into positions `[strokes, len(u), len(v), 2]`."""
        place = u[:, 0] * (path.shape[1] - 1.001)
        knot = place.astype(int)
        path = mix(path[:, knot], path[:, knot + 1], (place - knot)[:, None])
        tangent = np.gradient(path, axis=1)
        tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-9
        normal = np.stack([-tangent[..., 1], tangent[..., 0]], -1)
        half = 0.5 * width * self.rng.uniform(0.7, 1.15, (len(path), 1, 1))
        offset = half * np.clip(8 * u + 0.35, 0, 1) * (1 - 0.45 * u**3) * v
        return path[:, :, None] + normal[:, :, None] * offset[..., None]

    def layer(self, count: int, *, length, width, load, jitter, where=None) -> None:
        """Cover the canvas with `count` strokes in random order, or with the share `where`."""
        rng = self.rng
        starts = rng.uniform(0, 1, (count, 2)) * [self.width, self.height]
        if where is not None:
            starts = starts[rng.uniform(size=count) < self.look_up(where, starts)]
        for chunk in np.array_split(starts, max(1, len(starts) // 400)):
            colors = vary(self.look_up(self.sketch.color, chunk), jitter, rng)
            nearby = chunk + rng.normal(0, 1.2 * width * self.scale, chunk.shape)
            second = vary(self.look_up(self.sketch.color, nearby), 1.6 * jitter, rng)
            self.stroke(chunk, colors, second, length=length, width=width, load=load)

    def outlines(self, count: int, *, length, width) -> None:
        """Draw dark broken lines where outlined objects meet."""
        drawn = self.sketch.drawn
        level, plumb = drawn[:-1, :-1] != drawn[1:, :-1], drawn[:-1, :-1] != drawn[:-1, 1:]
        seen = (drawn[:-1, :-1] > 0) & (drawn[1:, :-1] > 0) & (drawn[:-1, 1:] > 0)
        rows, columns = np.nonzero((level | plumb) & seen)
        if not len(rows):
            return
        chosen = self.rng.choice(len(rows), count)
        starts = np.stack([columns[chosen], rows[chosen]], -1) + 0.5
        slope_y, slope_x = (soften(slope, 6) for slope in np.gradient(drawn.astype(float)))
        angles = np.arctan2(slope_x, -slope_y)
        local = 0.35 * self.look_up(self.sketch.color, starts)
        colors = vary(local + 0.5 * INK, 0.08, self.rng)
        second = vary(np.tile(LIT_INK, (count, 1)), 0.08, self.rng)
        everything = np.zeros_like(drawn)
        self.stroke(
            starts, colors, second,
            length=length, width=width, load=0.9, angles=angles, parts=everything,
        )  # fmt: skip

    def poppies(self, count: int) -> None:
        """Dab poppies onto the field, larger towards us."""
        for top, bottom, size in ((0.84, 0.90, 2.6), (0.88, 0.95, 4.0), (0.93, 1.0, 5.5)):
            starts = self.rng.uniform((0, top), (1, bottom), (count, 2)) * [self.width, self.height]
            colors = vary(np.tile(POPPY, (count, 1)), 0.08, self.rng)
            second = vary(np.tile(LIT_POPPY, (count, 1)), 0.08, self.rng)
            self.stroke(starts, colors, second, length=2.2 * size, width=size, load=1.6)


def vary(colors: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Change each of `[colours, 3]` a little, in brightness more than in hue."""
    value = np.clip(rng.normal(0, amount, (len(colors), 1)), -1.6 * amount, 1.6 * amount)
    hue = rng.normal(0, 0.6 * amount, colors.shape)
    return np.clip(colors * (1 + 2.0 * value) + hue, 0.01, 1.0)


def soften(values: np.ndarray, times: int) -> np.ndarray:
    """Blur `[rows, columns]` over three pixels, several times."""
    for _ in range(times):
        for axis in (0, 1):
            beside = np.roll(values, 1, axis) + np.roll(values, -1, axis)
            values = 0.5 * values + 0.25 * beside
    return values


def light_relief(color: np.ndarray, thickness: np.ndarray) -> np.ndarray:
    """Light the relief of the paint from the upper left."""
    slope_y, slope_x = np.gradient(soften(thickness, 1))
    shade = np.clip(-(0.6 * slope_x + 0.8 * slope_y), -1.2, 1.2)[..., None]
    return np.clip(color * (1 + 0.62 * shade) + 0.16 * np.maximum(shade - 0.2, 0), 0, 1)


def render_painting(scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Paint the picture: float32 sRGB `[round(512 scale), round(640 scale), 3]` in 0 to 1."""
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    fine = OVERSAMPLING
    sketch = make_sketch(fine * width, fine * height, seed)
    canvas = Canvas(sketch, fine * scale, np.random.default_rng(seed))
    canvas.layer(1500, length=90, width=22, load=0.8, jitter=0.05)
    canvas.layer(4500, length=62, width=12, load=1.0, jitter=0.06)
    canvas.layer(5200, length=44, width=8, load=1.2, jitter=0.07)
    canvas.layer(6000, length=27, width=5, load=1.2, jitter=0.09, where=sketch.detail)
    canvas.outlines(420, length=20, width=2.6)
    canvas.poppies(40)
    color = light_relief(canvas.color, canvas.thickness).reshape(height, fine, width, fine, 3)
    return color.mean((1, 3), dtype=np.float32)
