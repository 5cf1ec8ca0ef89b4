"""A photograph-like picture without a camera: a cabin and a jetty below snowy mountains.

Far and near world are drawn twice, by the camera and by its mirror image below the water; the lake
then shows the second drawing, through ripples and Fresnel's law, over its own bed.
"""

import copy

import numpy as np

from pictures.buildings import draw_boat, draw_cabin, draw_jetty
from pictures.camera import CAMERA_HEIGHT, View
from pictures.lakeside import CABIN, HEADLAND, draw_grass, draw_shore, headland_trees
from pictures.mountains import (
    draw_conifers,
    draw_far_forest,
    draw_mountains,
    draw_sky,
    mountain_map,
    sunlight_map,
)
from pictures.noise import blend_colors, fractal_noise, mix, smoothstep

WIDTH, HEIGHT = 768, 512
OVERSAMPLING = 2
EXPOSURE, SATURATION = 0.82, 1.12


def draw_water(view: View, far: View, near: View, seed: int) -> None:
    """Draw the lake over its bed.

    `far` is the mirror image without the near world, for water beyond the headland, which a
    reflection of the headland cannot reach; `near` is the mirror image of everything.
    """
    distance = CAMERA_HEIGHT / np.maximum(-view.slopes, 1e-6)
    water = (view.slopes < 0)[:, None] & (distance[:, None] < view.depth)
    rows, columns = np.nonzero(water)
    z, down = distance[rows], -view.slopes[rows]
    x = z * view.across[columns]

    # Ripples: the wind roughens some streaks; far ones are finer than a pixel and only blur.
    wind = 0.25 + smoothstep(-0.15, 0.5, fractal_noise(x / 40, z / 90, octaves=3, seed=seed + 301))
    strength = 0.015 * wind * np.minimum(1.0, 60.0 / z) ** 0.5
    tilt = strength * fractal_noise(x / 1.1, z / 0.8, octaves=4, seed=seed + 311)
    shift = 0.35 * strength * fractal_noise(x / 0.9, z / 1.2, octaves=3, seed=seed + 321)
    row = np.clip(np.abs(down + tilt) * view.focal, 0, near.height - 1).astype(int)
    column = np.clip(columns + shift * view.focal, 0, near.width - 1).astype(int)
    beyond = (z > HEADLAND[1])[:, None]
    mirrored = np.where(beyond, far.color[row, column], near.color[row, column])

    behind = view.depth[rows, columns]
    depth = np.where(np.isfinite(behind), behind - z, 1e3) * down
    bed = view.color[rows, columns] * np.array([0.55, 0.7, 0.65])
    below = blend_colors((0.012, 0.045, 0.055), bed, np.exp(-1.6 * np.maximum(depth, 0)))
    # Schlick's form of Fresnel's law, with a lower power for the roughness of the water.
    mirroring = 0.03 + 0.97 * (1 - np.clip(down + tilt, 0.0, 1.0)) ** 4
    view.color[rows, columns] = blend_colors(below, mirrored, mirroring)


def develop(color: np.ndarray) -> np.ndarray:
    """Linear light to sRGB in 0 to 1: exposure, saturation, a film-like tone curve, gamma."""
    gray = color.mean(-1, keepdims=True)
    color = EXPOSURE * np.maximum(mix(gray, color, SATURATION), 0.0)
    color = color * (2.51 * color + 0.03) / (color * (2.43 * color + 0.59) + 0.14)
    return np.clip(color, 0.0, 1.0) ** (1 / 2.2)


def render_photo(scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Render the picture: float32 sRGB `[round(512 scale), round(768 scale), 3]` in 0 to 1."""
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    fine, density = OVERSAMPLING, min(1.0, scale)
    heights = mountain_map(int(np.clip(1400 * scale, 150, 1400)), seed)
    light = sunlight_map(heights)
    trees = headland_trees(seed)
    view, near = (View(fine * width, fine * height, side) for side in (1, -1))
    for image in (view, near):
        draw_sky(image, seed)
        draw_mountains(image, heights, light, seed)
        draw_far_forest(image, heights, density, seed)
    far = copy.deepcopy(near)
    for image in (view, near):
        draw_shore(image, trees, seed)
        draw_cabin(image, CABIN, turn=0.5)
        points = int(16000 * density**2) + 300
        draw_conifers(image, *trees, points, seed + 91, contrast=0.85)
        draw_grass(image, density, seed)
        draw_jetty(image, (-3.3, 5.0), (-1.1, 17.5), width=1.5, seed=seed + 7)
        draw_boat(image, (2.3, 0.0, 15.2), turn=-0.5)
    draw_water(view, far, near, seed)
    color = develop(view.color).reshape(height, fine, width, fine, 3)
    return color.mean((1, 3), dtype=np.float32)
