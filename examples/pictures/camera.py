"""Drawing a world with numpy: lines of sight into height fields, point clouds, flat polygons.

The world is in metres: x to the right, y up, z forward, the water at y = 0, the camera above the
origin looking along z. Colours are linear light, `[..., 3]`, without an upper bound.
"""

import numpy as np

from pictures.noise import gradient_noise, mix

CAMERA_HEIGHT = 2.4
HORIZON = 0.575  # Of the picture's height, from the top.

SUN = np.array([-0.84, 0.30, -0.24]) / np.linalg.norm([-0.84, 0.30, -0.24])  # Towards the sun.
SUN_COLOR = np.array([4.0, 2.6, 1.45])
SKY_COLOR = np.array([0.30, 0.42, 0.68])


class View:
    """One rendering in progress: colours, depths (z in metres), and the camera that sees them.

    `side` is 1 for the camera and -1 for its mirror image below the water, which looks up. The
    rows of the mirror image are counted from the horizon downwards, as its reflection is seen.
    """

    def __init__(self, width: int, height: int, side: int):
        self.width, self.focal, self.side = width, float(width), side
        self.eye = CAMERA_HEIGHT * side
        self.horizon = HORIZON * height if side == 1 else 0.0
        # The mirror image has rows to spare below the picture, for ripples to look into.
        self.height = height if side == 1 else int(0.75 * height)
        # Lines of sight are (across, slope, 1).
        self.slopes = side * (self.horizon - np.arange(self.height) - 0.5) / self.focal
        self.across = (np.arange(width) + 0.5 - width / 2) / self.focal
        self.color = np.zeros((self.height, width, 3), np.float32)
        self.depth = np.full((self.height, width), np.inf, np.float32)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fractional column and row of `[..., 3]` points in front of the camera."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        column = x / z * self.focal + self.width / 2
        row = self.horizon - self.side * (y - self.eye) / z * self.focal
        return column, row


def first_hits(view: View, heights: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Distance z at which each pixel's line of sight meets the ground; infinite if it does not.

    `heights[k, column]` is the ground at `distances[k]` in that column, -inf where there is none.
    Each column of pixels is one vertical plane, in which the first height that rises above a line
    of sight is what the pixel shows: no marching is needed, only a search.
    """
    slopes = (heights - view.eye) / distances[:, None]
    rising = np.maximum.accumulate(slopes, axis=0)
    hits = np.full((view.height, view.width), np.inf, np.float32)
    for column in range(view.width):
        index = np.searchsorted(rising[:, column], view.slopes)
        found = index < len(distances)
        last = index[found]
        first = np.maximum(last - 1, 0)
        # Where the ground between two steps crosses the line of sight.
        above0 = heights[first, column] - view.eye - view.slopes[found] * distances[first]
        above1 = heights[last, column] - view.eye - view.slopes[found] * distances[last]
        usable = np.isfinite(above0) & (above1 > above0)
        rise = np.where(usable, above1 - above0, 1.0)
        t = np.where(usable, -np.where(usable, above0, 0.0) / rise, 1.0)
        hits[found, column] = mix(distances[first], distances[last], np.clip(t, 0.0, 1.0))
    return hits


def draw_points(view: View, points: np.ndarray, colors: np.ndarray, radius: np.ndarray) -> None:
    """Draw `[points, 3]` as squares of `radius` metres (`[points]`), nearer over farther ones."""
    if not len(points):
        return
    column, row = view.project(points)
    depth = points[:, 2].astype(np.float32)
    size = np.clip(np.round(2 * radius * view.focal / depth), 1, 8).astype(np.int32)
    order = np.argsort(-depth, kind="stable")
    largest = int(size.max())
    for dy, dx in np.ndindex(largest, largest):
        chosen = order[size[order] > max(dx, dy)]
        i = np.floor(row[chosen] + dy - 0.5 * (size[chosen] - 1)).astype(np.int32)
        j = np.floor(column[chosen] + dx - 0.5 * (size[chosen] - 1)).astype(np.int32)
        inside = (i >= 0) & (i < view.height) & (j >= 0) & (j < view.width)
        i, j, chosen = i[inside], j[inside], chosen[inside]
        visible = depth[chosen] < view.depth[i, j]
        i, j, chosen = i[visible], j[visible], chosen[visible]
        view.color[i, j] = colors[chosen]  # Of equal indices the last, the nearest, stays.
        view.depth[i, j] = depth[chosen]


def draw_polygon(view: View, corners, paint) -> None:
    """Draw a flat convex polygon, `[corners, 3]` in order around its edge.

    `paint(u, v, facing)` gives albedo and glow, each `[pixels, 3]` or less, at metres u along the
    first edge and v across it; `facing` is 1 where the outside is seen (the corners then run
    clockwise), else -1. Polygons without area are left out.
    """
    corners = np.asarray(corners, float)
    i, j = pixels_inside(view, *view.project(corners))
    if not len(i):
        return
    edge = corners[1] - corners[0]
    normal = np.cross(edge, corners[-1] - corners[0])
    if np.linalg.norm(normal) < 1e-6:
        return
    normal /= np.linalg.norm(normal)
    along = edge / np.linalg.norm(edge)
    eye = np.array([0.0, view.eye, 0.0])
    facing = 1 if normal @ (corners[0] - eye) < 0 else -1
    rays = np.stack([view.across[j], view.slopes[i], np.ones(len(i))], -1)
    with np.errstate(divide="ignore", invalid="ignore"):  # Seen exactly from the edge.
        depth = (normal @ (corners[0] - eye)) / (rays @ normal)
    shown = (depth > 0) & (depth < view.depth[i, j])
    i, j, depth = i[shown], j[shown], depth[shown]
    position = eye + rays[shown] * depth[:, None] - corners[0]
    albedo, glow = paint(position @ along, position @ np.cross(normal, along), facing)
    sun = max(0.0, facing * (normal @ SUN))
    light = sun * SUN_COLOR + SKY_COLOR * (0.65 + 0.35 * facing * normal[1])
    view.color[i, j] = albedo * light + glow
    view.depth[i, j] = depth


def pixels_inside(view: View, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows and columns of the pixels whose middles lie in a convex polygon."""
    # Of the rectangle around it, only the pixels whose middles can be inside: often none.
    j0, j1 = max(round(column.min()), 0), min(round(column.max()), view.width)
    i0, i1 = max(round(row.min()), 0), min(round(row.max()), view.height)
    if j0 >= j1 or i0 >= i1:
        return np.zeros(0, int), np.zeros(0, int)
    j, i = np.meshgrid(np.arange(j0, j1), np.arange(i0, i1))
    next_column, next_row = np.roll(column, -1), np.roll(row, -1)
    turning = np.sign(np.sum(column * next_row - next_column * row))
    inside = np.ones(j.shape, bool)
    for c0, r0, c1, r1 in zip(column, row, next_column, next_row, strict=True):
        left = (c1 - c0) * (i + 0.5 - r0) - (r1 - r0) * (j + 0.5 - c0)
        inside &= left * turning >= 0
    return i[inside], j[inside]


def turned(turn: float) -> np.ndarray:
    """Axes (rows) turned by `turn` radians around the vertical."""
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def draw_box(view: View, center, half, paint, turn: float = 0.0) -> None:
    """Draw a box with the half-sizes `half`, turned by `turn` radians around the vertical."""
    axes = turned(turn) * np.asarray(half, float)[:, None]
    for axis in range(3):
        a, b = axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        if axis == 0:
            a, b = b, -a  # So that u is level on all walls.
        for sign in (-1, 1):
            middle = np.asarray(center) + sign * axes[axis]
            a_out = sign * a
            corners = (
                middle - a_out - b,
                middle + a_out - b,
                middle + a_out + b,
                middle - a_out + b,
            )
            draw_polygon(view, corners, paint)


def plain(color, glow=(0.0, 0.0, 0.0)):
    """A paint of one albedo, perhaps with light of its own."""
    return lambda u, v, facing: (np.asarray(color, float), np.asarray(glow, float))


def wood(color, *, board: float, seed: int, upright: bool = False):
    """A paint of boards `board` metres wide along u (`upright`: along v), with grain and gaps."""

    def paint(u, v, facing):
        across, along = (u, v) if upright else (v, u)
        number = np.floor(across / board)
        gap = np.abs(across / board - number - 0.5) > 0.46
        tone = gradient_noise(number * 7.31 + 0.5, 0.37, seed=seed)
        grain = gradient_noise(across * 40, along * 1.2 + 9 * number, seed=seed + 1)
        value = (1 + 0.35 * tone + 0.22 * grain) * np.where(gap, 0.35, 1.0)
        return np.asarray(color) * value[:, None], 0.0

    return paint
