"""Gradient noise and its sums, the raw material of both pictures, and two blending helpers."""

import numpy as np

LATTICE = 1024  # Lattice points before a noise pattern repeats; a power of two.


def smoothstep(low: float, high: float, value) -> np.ndarray:
    """Rise smoothly from 0 where `value` is `low` to 1 where it is `high`; flat outside."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(start, end, weight) -> np.ndarray:
    """Blend from `start` (weight 0) to `end` (weight 1)."""
    start, end = np.asarray(start), np.asarray(end)
    return start + (end - start) * weight


def blend_colors(start, end, weight) -> np.ndarray:
    """Blend colours `[..., 3]` by weights `[...]`."""
    return mix(start, end, np.asarray(weight)[..., None])


def lattice_index(column, row, permutation: np.ndarray) -> np.ndarray:
    """A scattered number, 0 to LATTICE - 1, for each whole (column, row)."""
    mask = LATTICE - 1
    return permutation[(permutation[row & mask] + column) & mask]


def gradient_noise(x, y, *, seed: int) -> np.ndarray:
    """Perlin's gradient noise at the points (x, y): about -1 to 1, about one bump a unit."""
    rng = np.random.default_rng(seed)
    permutation = rng.permutation(LATTICE)
    angles = rng.uniform(0.0, 2.0 * np.pi, LATTICE)
    slopes_x, slopes_y = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    x, y = np.broadcast_arrays(x, y)
    column, row = np.floor(x), np.floor(y)
    fx, fy = (x - column).astype(np.float32), (y - row).astype(np.float32)
    column, row = column.astype(np.int64), row.astype(np.int64)

    def corner(dx: int, dy: int) -> np.ndarray:
        index = lattice_index(column + dx, row + dy, permutation)
        return slopes_x[index] * (fx - dx) + slopes_y[index] * (fy - dy)

    ease_x = fx * fx * fx * (fx * (fx * 6.0 - 15.0) + 10.0)
    ease_y = fy * fy * fy * (fy * (fy * 6.0 - 15.0) + 10.0)
    top = mix(corner(0, 0), corner(1, 0), ease_x)
    bottom = mix(corner(0, 1), corner(1, 1), ease_x)
    return 1.5 * mix(top, bottom, ease_y)


def fractal_noise(
    x, y, *, octaves: int, seed: int, gain: float = 0.5, ridged: bool = False
) -> np.ndarray:
    """Sum `octaves` of noise, each twice as fine and `gain` times as strong: about -1 to 1.

    With `ridged`, every octave is folded into sharp crests (0 to 1), and the fine octaves are
    strong only where the coarse ones are high, as on real mountains.
    """
    x, y = np.broadcast_arrays(x, y)
    total = np.zeros(x.shape, np.float32)
    weight = np.ones_like(total)
    amplitude, norm = 1.0, 0.0
    for octave in range(octaves):
        value = gradient_noise(x, y, seed=seed + octave)
        if ridged:
            value = np.clip(1.0 - np.abs(value), 0.0, 1.0) ** 2 * weight
            weight = np.clip(value * 1.6, 0.0, 1.0)
        total += amplitude * value
        norm += amplitude
        amplitude *= gain
        # Twice as fine, and turned by about 37 degrees, which hides the axes of the lattice.
        x, y = 1.6 * x - 1.2 * y + 17.3, 1.2 * x + 1.6 * y - 9.1
    return total / norm
