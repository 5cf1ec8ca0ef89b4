"""The near world of the landscape: shores and boulders, the headland's trees, grass, shadows."""

import numpy as np

from pictures.camera import SKY_COLOR, SUN, SUN_COLOR, View, draw_points, first_hits
from pictures.noise import (
    LATTICE,
    blend_colors,
    fractal_noise,
    gradient_noise,
    lattice_index,
    mix,
    smoothstep,
)

HEADLAND = (22.0, 60.0, 21.0, 12.0)  # Middle x and z, half-sizes in x and z.
CABIN = (12.5, 1.3, 56.0)


def shore_height(x, z, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Height of the ground nearer than 150 m, and where it is a boulder.

    It has our shore, the cabin's headland and the bed of the lake.
    """
    rough = fractal_noise(x / 5, z / 5, octaves=4, seed=seed + 201)
    edge = 8.6 + 4.6 * smoothstep(1.0, 7.5, x) + 1.2 * smoothstep(-2.0, -6.0, x) + 1.3 * rough
    ours = 0.16 * (edge - z) + 0.05 * rough
    reach = 1 - np.hypot((x - HEADLAND[0]) / HEADLAND[2], (z - HEADLAND[1]) / HEADLAND[3])
    reach = reach + 0.10 * fractal_noise(x / 9, z / 9, octaves=4, seed=seed + 211)
    headland = np.where(reach > 0, 2.6 * np.abs(reach) ** 0.75, 6.0 * reach) + 0.08 * rough
    ground = np.maximum(np.maximum(ours, headland), -2.5 + 0.3 * rough)
    stones = boulders(x, z, ground, seed)
    return np.maximum(ground, stones), stones > ground


def boulders(x, z, ground, seed: int) -> np.ndarray:
    """Height of half-sunk stones scattered along the waterline; -inf between them."""
    top = np.full_like(ground, -np.inf)
    # One stone at most in each cell of the size given.
    for size, chance in ((0.5, 0.5), (1.2, 0.3), (2.4, 0.18)):
        rng = np.random.default_rng(seed + 220 + int(10 * size))
        table, permutation = rng.uniform(0, 1, (4, LATTICE)), rng.permutation(LATTICE)
        cell_x, cell_z = np.floor(x / size).astype(np.int64), np.floor(z / size).astype(np.int64)
        index = lattice_index(cell_x, cell_z, permutation)
        radius = size * (0.2 + 0.28 * table[0][index])
        dent = 0.14 * size * gradient_noise(x / size * 3.1, z / size * 3.1, seed=seed + 229)
        off_x = x + dent - (cell_x + 0.5 + 0.3 * (table[1][index] - 0.5)) * size
        off_z = z + dent - (cell_z + 0.5 + 0.3 * (table[2][index] - 0.5)) * size
        dome = 1 - (off_x**2 + off_z**2) / radius**2
        stone = ground * 0.9 + radius * (0.75 * np.sqrt(np.clip(dome, 0, 1)) - 0.12)
        present = (dome > 0) & (table[3][index] < chance) & (np.abs(ground) < 0.5 * size)
        top = np.where(present, np.maximum(top, stone), top)
    return top


def headland_trees(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places `[trees, 3]` and heights of the conifers around the cabin."""
    rng = np.random.default_rng(seed + 90)
    x, z = rng.uniform(6, 42, 70), rng.uniform(52, 70, 70)
    y, _ = shore_height(x, z, seed)
    clear_of_cabin = (np.abs(x - CABIN[0]) > 5.5) | (z > CABIN[2] + 5)
    kept = (y > 0.5) & clear_of_cabin
    return np.stack([x, y - 0.2, z], -1)[kept], rng.uniform(7, 17, kept.sum())


def cast_shadows(x, y, z, trees) -> np.ndarray:
    """How much sun gets past the trees, as cones, and the cabin, as a block, to near points."""
    level = np.hypot(SUN[0], SUN[2])
    to_x, to_z, climb = SUN[0] / level, SUN[2] / level, SUN[1] / level

    def towards_sun(place):
        along = (place[0] - x) * to_x + (place[2] - z) * to_z
        aside = np.abs((place[0] - x) * to_z - (place[2] - z) * to_x)
        return along, aside, y + along * climb - place[1]  # The last: where the ray passes it.

    light = np.ones_like(x)
    for place, size in zip(*trees, strict=True):
        along, aside, height = towards_sun(place)
        covered = smoothstep(-0.5, 0.4, 0.17 * np.minimum(size - height, 0.93 * size) - aside)
        light *= 1 - 0.8 * covered * smoothstep(0.2, 1.0, along)
    along, aside, height = towards_sun(CABIN)
    covered = smoothstep(0, 0.3, 4.6 - 0.6 * aside - height) * smoothstep(3.7, 3.4, aside)
    return light * (1 - 0.85 * covered * (along > 1))


def draw_shore(view: View, trees, seed: int) -> None:
    """Draw the near ground, the bed of the lake included."""
    distances = np.geomspace(4.0, 150.0, int(1.5 * view.width)).astype(np.float32)
    x, z = np.broadcast_arrays(distances[:, None] * view.across, distances[:, None])
    table, _ = shore_height(x, z, seed)
    if view.side < 0:  # The water mirrors what is above it, and not our own shore.
        table = np.where((table > 0) & (z > 20), table, -np.inf)
    hits = first_hits(view, table, distances)
    rows, columns = np.nonzero(np.isfinite(hits) & (hits < view.depth))
    z = hits[rows, columns]
    x, y = z * view.across[columns], view.eye + z * view.slopes[rows]

    step = 0.02 + 0.002 * z
    here, boulder = shore_height(x, z, seed)
    slope_x = (shore_height(x + step, z, seed)[0] - here) / step
    slope_z = (shore_height(x, z + step, seed)[0] - here) / step
    grain = fractal_noise(x / 0.3 + 2 * y, z / 0.3 + 3 * y, octaves=5, seed=seed + 231, gain=0.65)
    normal = np.stack([0.8 * grain - slope_x, np.ones_like(x), -0.8 * grain - slope_z], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)

    patches = fractal_noise(x / 2.2, z / 2.2, octaves=5, seed=seed + 241)
    cracks = fractal_noise(x / 0.9 + y, z / 0.9 + 2 * y, octaves=4, seed=seed + 251, ridged=True)
    grain = grain - 1.2 * smoothstep(0.80, 0.95, cracks) * boulder
    grass = blend_colors((0.06, 0.085, 0.022), (0.16, 0.125, 0.045), smoothstep(-0.3, 0.4, patches))
    grass *= 1 + 0.5 * grain[:, None]
    shade = np.maximum(1 + 0.5 * grain + 0.5 * patches, 0.15)
    stone = np.array([0.17, 0.155, 0.14]) * shade[:, None]
    stony = np.maximum(boulder, smoothstep(0.35, 0.12, y + 0.1 * grain))
    albedo = blend_colors(grass, stone, stony)
    albedo *= (0.45 + 0.55 * smoothstep(0.0, 0.14, y))[:, None]  # Wet at the water.
    sun = np.clip(normal @ SUN, 0, 1) * cast_shadows(x, y, z, trees)
    light = sun[:, None] * SUN_COLOR + SKY_COLOR * (0.6 + 0.4 * normal[:, 1:2])
    view.color[rows, columns] = albedo * light
    view.depth[rows, columns] = z


def draw_grass(view: View, density: float, seed: int) -> None:
    """Draw tufts of grass on our shore and on the headland."""
    rng = np.random.default_rng(seed + 95)
    # Range of x and z, tufts, points a blade.
    for (x0, x1, z0, z1), tufts, steps in (((1, 9, 6, 15), 420, 60), ((3, 42, 47, 60), 1500, 14)):
        x, z = (rng.uniform(a, b, int(tufts * density)) for a, b in ((x0, x1), (z0, z1)))
        y, boulder = shore_height(x, z, seed)
        meadow = gradient_noise(x / 1.5, z / 1.5, seed=seed + 96) > -0.15
        x, y, z = (v[(y > 0.05) & ~boulder & meadow][:, None, None] for v in (x, y, z))
        shape = (len(x), 30, 1)
        tall = rng.uniform(0.15, 0.5, shape) * rng.uniform(0.6, 1.2, x.shape)
        t = np.linspace(0, 1, steps)  # From the root to the tip, which bends over.
        x = x + rng.normal(0, 0.1, shape) + rng.normal(0.1, 0.3, shape) * tall * t**2
        z = z + rng.normal(0, 0.1, shape) + rng.normal(0.0, 0.3, shape) * tall * t**2
        points = np.stack(np.broadcast_arrays(x, y + tall * t, z), -1).reshape(-1, 3)
        ripe = rng.uniform(size=(*shape, 1)) ** 1.6
        color = mix((0.045, 0.085, 0.02), (0.20, 0.16, 0.065), ripe) * (0.2 + 0.8 * t[:, None])
        color = (color * 0.5 * (SUN_COLOR + SKY_COLOR)).reshape(-1, 3)
        draw_points(view, points, color, np.full(len(points), 0.006))
