"""The far world of the landscape: mountains cut by water, snow and rock, forest, sky and haze."""

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

# Peaks of the mountains: x, z, height and radius in metres.
PEAKS = (
    (1300, 8200, 2500, 4200),
    (-1500, 10400, 1750, 3400),
    (300, 11500, 1900, 3000),
    (-4200, 11500, 2300, 4200),
    (4300, 9500, 2000, 3800),
    (-2300, 4300, 620, 1900),
    (2300, 3900, 560, 1700),
    (300, 4600, 330, 1500),
)
MAP_EXTENT = 14000.0  # The map of the mountains: x from -7 to 7 km, z from 0 to 14 km.
HAZE, WARM_HAZE = (0.50, 0.60, 0.80), (1.25, 0.92, 0.68)


def map_axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """X and z of the points of a square map with `size` points a side."""
    axis = np.linspace(0.0, MAP_EXTENT, size, dtype=np.float32)
    x, z = np.meshgrid(axis - MAP_EXTENT / 2, axis)
    return x, z


def gully_noise(x, z, along_x, along_z, *, seed: int) -> np.ndarray:
    """Stripes that run along the unit direction (along_x, along_z), about one a unit.

    Each cell has a wave of its own around a point of its own; neighbours are blended.
    """
    rng = np.random.default_rng(seed)
    shifts = rng.uniform(-0.35, 0.35, (2, LATTICE)).astype(np.float32)
    permutation = rng.permutation(LATTICE)
    cell_x, cell_z = np.floor(x).astype(np.int32), np.floor(z).astype(np.int32)
    total, weights = np.zeros_like(x), np.full_like(x, 1e-4)
    for dz, dx in np.ndindex(3, 3):
        index = lattice_index(cell_x + dx - 1, cell_z + dz - 1, permutation)
        from_x = x - cell_x - dx + 0.5 - shifts[0][index]
        from_z = z - cell_z - dz + 0.5 - shifts[1][index]
        weight = np.clip(1.0 - (from_x**2 + from_z**2) / 1.9, 0.0, 1.0) ** 3
        total += weight * np.cos(2 * np.pi * (from_x * along_z - from_z * along_x))
        weights += weight
    return total / weights


def mountain_map(size: int, seed: int) -> np.ndarray:
    """Heights in metres on a square map of `size` points a side, below zero in the lake."""
    x, z = map_axes(size)
    warped_x = x + 600 * fractal_noise(x / 3000, z / 3000, octaves=5, seed=seed + 1)
    warped_z = z + 600 * fractal_noise(x / 3000, z / 3000, octaves=5, seed=seed + 11)
    heights = np.zeros_like(x)
    for peak_x, peak_z, peak, radius in PEAKS:
        square = ((warped_x - peak_x) ** 2 + (warped_z - peak_z) ** 2) / radius**2
        heights = np.maximum(heights, peak * np.exp(-2.2 * (square + 0.004) ** 0.62))
    ridges = fractal_noise(warped_x / 2600, warped_z / 2600, octaves=4, seed=seed + 21, ridged=True)
    heights = carve_gullies(heights * (0.6 + 0.75 * ridges), x, z, seed)

    # The far shore of the lake, nearer at the left, and knolls behind it.
    shore = 1250 + 260 * gradient_noise(x / 700, 0.0, seed=seed + 5)
    shore -= 450 * smoothstep(0.1, 0.5, -x / np.maximum(z, 1.0))
    inland = z - shore
    knolls = 45 * (fractal_noise(x / 420, z / 420, octaves=3, seed=seed + 6) + 0.4)
    land = heights * smoothstep(0, 1500, inland) + knolls * smoothstep(0, 400, inland)
    return np.where(inland > 0, land + 0.012 * inland + 1.0, -5.0)


def carve_gullies(heights, x, z, seed: int) -> np.ndarray:
    """Cut gullies down the slopes, finer ones into the sides of coarser ones."""
    cell = MAP_EXTENT / (len(heights) - 1)
    wavelength = 1500.0
    for octave in range(7):
        slope_z, slope_x = np.gradient(heights, cell)
        steepness = np.hypot(slope_x, slope_z) + 1e-6
        down_x, down_z = slope_x / steepness, slope_z / steepness
        gullies = gully_noise(
            x / wavelength, z / wavelength, down_x, down_z, seed=seed + 100 + octave
        )
        depth = 0.042 * 0.92**octave * wavelength * np.minimum(steepness, 1.6)
        heights = heights + depth * gullies * smoothstep(0.05, 0.6, steepness)
        wavelength /= 1.9
    return heights


def sample_map(grid: np.ndarray, x, z) -> np.ndarray:
    """Look a map up at (x, z) metres, bilinearly; held at its edges."""
    limit = len(grid) - 1.001
    column = np.clip((x / MAP_EXTENT + 0.5) * (len(grid) - 1), 0, limit)
    row = np.clip(z / MAP_EXTENT * (len(grid) - 1), 0, limit)
    i, j = column.astype(np.int32), row.astype(np.int32)
    a, b = (column - i).astype(np.float32), (row - j).astype(np.float32)
    top = mix(grid[j, i], grid[j, i + 1], a)
    return mix(top, mix(grid[j + 1, i], grid[j + 1, i + 1], a), b)


def sunlight_map(heights: np.ndarray) -> np.ndarray:
    """How much of the sun reaches each second point of the map past the mountains: 0 to 1."""
    coarse = heights[::2, ::2]
    x, z = map_axes(len(coarse))
    light = np.ones_like(coarse)
    level = np.hypot(SUN[0], SUN[2])
    for distance in np.geomspace(40.0, 5000.0, 36):
        dx, dz = SUN[0] / level * distance, SUN[2] / level * distance
        clearance = coarse + distance * SUN[1] / level - sample_map(coarse, x + dx, z + dz)
        light = np.minimum(light, np.clip(0.5 + clearance / (0.06 * distance), 0.0, 1.0))
    return light


def add_haze(color, x, y, z) -> np.ndarray:
    """Fade `color` with the distance z, faster near the ground, and in mist over the far shore."""
    y, beyond = np.maximum(y, 0), np.maximum(z - 500, 0)
    thickness = z / 26000.0 + beyond / 13000.0 * np.exp(-y / 160.0)
    thickness = thickness + 0.55 * smoothstep(500, 1800, z) * np.exp(-y / 16.0)
    left = np.clip(0.5 - x / np.maximum(z, 1.0), 0, 1)
    haze = blend_colors(HAZE, WARM_HAZE, 0.5 * left)
    return blend_colors(haze, color, np.exp(-thickness))


def draw_sky(view: View, seed: int) -> None:
    """Draw the evening sky with a layer of lit clouds."""
    across, slope = np.broadcast_arrays(view.across, np.maximum(view.slopes, 0.0)[:, None])
    length = np.sqrt(across**2 + slope**2 + 1.0)
    up, left = slope / length, 0.5 - across
    color = blend_colors((0.075, 0.20, 0.50), (0.36, 0.54, 0.82), np.exp(-up * 4.0))
    warm = blend_colors((0.86, 0.62, 0.58), (1.35, 0.88, 0.50), np.clip(left, 0, 1))
    color = blend_colors(color, warm, np.clip(np.exp(-up * 7.0) * (0.55 + 0.4 * left), 0, 1))

    # Clouds lie on a plane overhead, seen from below.
    u, v = across / length / (up + 0.09), 1.0 / length / (up + 0.09)
    warp = fractal_noise(u * 0.6, v * 0.6, octaves=3, seed=seed + 31)

    def density(u, v):
        u, v = u * 0.75 + warp, v * 1.15 + 0.6 * warp
        return fractal_noise(u, v, octaves=7, seed=seed + 41, gain=0.55)

    here, sunward = density(u, v), density(u - 0.12, v - 0.05)
    cover = smoothstep(-0.02, 0.38, here) * smoothstep(0.0, 0.12, up)
    lit = np.clip(0.55 + 2.2 * (here - sunward) - 0.5 * here, 0, 1)
    cloud = blend_colors((0.42, 0.40, 0.50), (1.55, 1.12, 0.82), lit)
    view.color[:] = blend_colors(color, cloud, 0.85 * cover)


def draw_mountains(view: View, heights: np.ndarray, light: np.ndarray, seed: int) -> None:
    """Draw the far terrain, lit, coloured by height and steepness, and hazy."""
    distances = np.geomspace(500.0, 13800.0, int(1.6 * view.width)).astype(np.float32)
    table = sample_map(
        heights, *np.broadcast_arrays(distances[:, None] * view.across, distances[:, None])
    )
    hits = first_hits(view, np.where(table > 0, table, -np.inf), distances)
    rows, columns = np.nonzero(np.isfinite(hits))
    z = hits[rows, columns]
    x, y = z * view.across[columns], np.maximum(view.eye + z * view.slopes[rows], 0)

    patches = fractal_noise(x / 500, z / 500, octaves=6, seed=seed + 61)
    wooded = smoothstep(760, 520, y + 350 * patches)
    grain = fractal_noise(x / 28, (z + y) / 28, octaves=4, seed=seed + 51) * (0.18 + 0.7 * wooded)
    slope_z, slope_x = np.gradient(heights, MAP_EXTENT / (len(heights) - 1))
    slope_x, slope_z = sample_map(slope_x, x, z), sample_map(slope_z, x, z)
    normal = np.stack([grain - slope_x, np.ones_like(x), -grain - slope_z], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    level = normal[:, 1]

    strata = gradient_noise(x / 900, y / 22 + 3 * patches, seed=seed + 71)
    rock = np.array([0.135, 0.12, 0.115]) * (1 + 0.25 * strata + 0.5 * patches)[:, None]
    meadow = np.array([0.085, 0.095, 0.035]) * (1 + 0.5 * patches)[:, None]
    forest = np.array([0.022, 0.045, 0.024]) * (1 + 0.6 * grain)[:, None]
    grassy = smoothstep(0.62, 0.8, level) * smoothstep(1250, 700, y + 300 * patches)
    albedo = blend_colors(
        blend_colors(rock, meadow, grassy), forest, smoothstep(0.35, 0.55, level) * wooded
    )
    holding = smoothstep(0.40, 0.56, level + 0.12 * patches + (y - 1500) / 7000)
    snow = smoothstep(950, 1400, y + 500 * patches) * holding
    albedo = blend_colors(albedo, (0.84, 0.87, 0.92), snow)

    sun = np.clip(normal @ SUN, 0, 1) * sample_map(light, x, z)
    color = albedo * (sun[:, None] * SUN_COLOR + SKY_COLOR * (0.65 + 0.35 * level[:, None]))
    view.color[rows, columns] = add_haze(color, x, y, z)
    view.depth[rows, columns] = z


def conifer(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A spruce of height 1: `[count, 3]` points and their `[count, 2]` light of sun and sky."""
    branches = max(60, count // 60)
    base = np.sort(rng.uniform(0.05, 1.0, branches)) ** 0.9
    length = (0.21 * (1.0 - base) ** 0.8 + 0.006) * rng.uniform(0.65, 1.1, branches)
    angle = rng.uniform(0, 2 * np.pi, branches)
    which = rng.choice(branches, count, p=length / length.sum())
    base, length, angle = base[which], length[which], angle[which]
    along = rng.uniform(0, 1, count) ** 0.7
    reach = along * length
    aside = rng.normal(0, 0.16, count) * length * (1.1 - along)
    hang = -np.abs(rng.normal(0, 0.014, count)) * (1.2 - along)
    x = reach * np.cos(angle) - aside * np.sin(angle)
    z = reach * np.sin(angle) + aside * np.cos(angle)
    y = base - 0.55 * reach + 5.8 * reach**2 + hang  # Branches droop, their tips rise.
    normal = np.stack([np.cos(angle), np.full(count, 0.5), np.sin(angle)], -1) / 1.118
    open_air = 0.14 + 0.86 * along**1.5  # The inside of the tree is dark.
    sun = np.clip(normal @ SUN + 0.25, 0, 1) * open_air * np.clip(1 + hang * 25, 0.3, 1)
    light = np.stack([sun, open_air * (0.5 + 0.5 * base)], -1)
    trunk = rng.uniform(0, 1, count) < 0.03
    stem = np.stack([0.008 * np.cos(40 * along), 0.5 * along, 0.008 * np.sin(40 * along)], -1)
    return np.where(trunk[:, None], stem, np.stack([x, y, z], -1)), light


def draw_conifers(view: View, places, sizes, count: int, seed: int, *, contrast=1.0, tint=1.0):
    """Draw a conifer of `count` points at each of the `places`, `[trees, 3]`.

    `sizes` are heights in metres; `contrast` below 1 evens out the light within a tree, as distance
    does; `tint` below 1 darkens it.
    """
    rng = np.random.default_rng(seed)
    kinds = [conifer(rng, count) for _ in range(8)]
    kinds = [(shape, mix(light.mean(0), light, contrast)) for shape, light in kinds]
    clouds, colors = [], []
    for place, size in zip(places, sizes, strict=True):
        shape, light = kinds[rng.integers(len(kinds))]
        wide = rng.uniform(0.8, 1.2)
        clouds.append(place + shape * size * np.array([wide, 1.0, 1.0]))
        green = tint * mix((0.045, 0.085, 0.040), (0.085, 0.095, 0.030), rng.uniform())
        shade = light[:, :1] * SUN_COLOR * 1.2 + light[:, 1:] * SKY_COLOR * 0.8
        colors.append(green * shade * (1 + 0.25 * contrast * rng.uniform(-1, 1, (count, 1))))
    if not clouds:
        return
    points, colors = np.concatenate(clouds), np.concatenate(colors)
    far = points[:, 2] > 200
    colors[far] = add_haze(colors[far], *points[far].T)
    draw_points(view, points, colors, np.repeat(np.asarray(sizes) * 0.13 / np.sqrt(count), count))


def draw_far_forest(view: View, heights: np.ndarray, density: float, seed: int) -> None:
    """Draw the forest on the far shore and, with coarser trees, on the hills behind it."""
    rng = np.random.default_rng(seed + 81)
    for nearest, farthest, trees, points in ((650, 1800, 7000, 260), (1800, 4600, 16000, 70)):
        count = int(trees * density)
        z = nearest * (farthest / nearest) ** rng.uniform(0, 1, count)
        x = z * rng.uniform(-0.55, 0.55, count)
        ground = sample_map(heights, x, z)
        clearing = fractal_noise(x / 350, z / 350, octaves=3, seed=seed + 82)
        kept = (ground > 0.4) & (clearing < 0.28 + 0.3 * rng.uniform(size=count))
        places = np.stack([x, ground, z], -1)[kept]
        sizes = rng.uniform(15, 36, len(places))
        points = max(20, int(points * density))
        draw_conifers(view, places, sizes, points, seed + 83, contrast=0.45, tint=0.62)
