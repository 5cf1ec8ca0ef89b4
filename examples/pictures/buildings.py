"""What people built on the lake: a red cabin, a jetty of planks and a rowing boat."""

import numpy as np

from pictures.camera import View, draw_box, draw_polygon, plain, turned, wood

WHITE = plain((0.75, 0.73, 0.68))


def draw_cabin(view: View, center, turn: float) -> None:
    """Draw the cabin: walls, roof, chimney, lit windows and a door."""
    frame = turned(turn)
    half_x, half_z, wall, ridge, base = 3.6, 2.6, 2.6, 4.9, -0.8

    def at(*local):
        return np.asarray(center) + np.array(local) @ frame

    red = wood((0.23, 0.045, 0.037), board=0.22, seed=4, upright=True)
    shingle = wood((0.07, 0.065, 0.07), board=0.3, seed=5)
    eave, out, end_x = wall - 0.35, half_z + 0.4, half_x + 0.4
    for side in (-1, 1):
        x, z, far = side * half_x, side * half_z, side * out
        gable = (at(x, base, z), at(x, base, -z), at(x, wall, -z), at(x, ridge, 0), at(x, wall, z))
        draw_polygon(view, gable, red)
        draw_polygon(view, (at(-x, base, z), at(x, base, z), at(x, wall, z), at(-x, wall, z)), red)
        slope = (
            at(-end_x, eave, far),
            at(end_x, eave, far),
            at(end_x, ridge, 0),
            at(-end_x, ridge, 0),
        )
        draw_polygon(view, slope, shingle)
        for end in (-1, 1):  # White boards along the roof's edges and at the corners.
            x = end * (end_x + 0.01)
            board = (
                at(x, eave - 0.2, far),
                at(x, eave, far),
                at(x, ridge + 0.05, 0),
                at(x, ridge - 0.2, 0),
            )
            draw_polygon(view, board, WHITE)
            corner = at(end * half_x, (wall + base) / 2, z)
            draw_box(view, corner, (0.1, (wall - base) / 2, 0.1), WHITE, turn)
    draw_box(
        view,
        at(1.6, ridge, 0.5),
        (0.35, 0.9, 0.35),
        wood((0.2, 0.17, 0.16), board=0.16, seed=8),
        turn,
    )

    for x in (-1.9, 2.0):
        draw_window(view, at(x, 1.35, -half_z), turn, 0.55)
    draw_window(view, at(-half_x, 1.35, 0), turn - np.pi / 2, 0.6)
    draw_box(view, at(0.1, 0.85, -half_z), (0.55, 1.1, 0.05), WHITE, turn)
    door = wood((0.10, 0.13, 0.16), board=0.2, seed=6, upright=True)
    draw_box(view, at(0.1, 0.80, -half_z - 0.03), (0.43, 1.02, 0.05), door, turn)


def draw_window(view: View, center, turn: float, half: float) -> None:
    """Draw a square window with a white frame and a lamp behind it; it faces the local -z."""
    toward = turned(turn)[2]
    lamp = plain((0.05, 0.04, 0.03), glow=(1.5, 0.85, 0.30))
    draw_box(view, center, (half, 0.6, 0.05), WHITE, turn)
    draw_box(view, center - 0.03 * toward, (half - 0.12, 0.48, 0.05), lamp, turn)
    draw_box(view, center - 0.06 * toward, (0.035, 0.6, 0.05), WHITE, turn)


def draw_jetty(view: View, start, end, width: float, seed: int) -> None:
    """Draw a plank jetty on posts between two points (x, z) on the water."""
    rng = np.random.default_rng(seed)
    start, end = np.array([start[0], 0.55, start[1]]), np.array([end[0], 0.55, end[1]])
    length = np.linalg.norm(end - start)
    along = (end - start) / length
    aside = np.array([along[2], 0, -along[0]])
    turn = np.arctan2(-along[0], along[2])
    for k in range(int(length / 0.2)):
        middle = start + along * (0.2 * k + 0.1) + aside * rng.normal(0, 0.02)
        gray = rng.uniform(0.7, 1.25) * np.array([0.23, 0.185, 0.145])
        paint = wood(gray, board=0.176, seed=seed + 10 + k, upright=True)
        draw_box(view, middle, (width / 2 + rng.uniform(-0.03, 0.05), 0.03, 0.088), paint, turn)
    timber = wood((0.10, 0.08, 0.065), board=0.5, seed=seed + 3, upright=True)
    down = np.array([0.0, -1.0, 0.0])
    for side in (-1, 1):
        beam = (start + end) / 2 + aside * side * (width / 2 - 0.12) + 0.11 * down
        draw_box(view, beam, (0.05, 0.08, length / 2), timber, turn)
        for distance in np.arange(length - 0.15, 0, -2.6):
            post = start + along * distance + aside * side * (width / 2 + 0.02) + 0.35 * down
            draw_box(view, post, (0.08, 0.62, 0.08), timber, turn)


def draw_boat(view: View, center, turn: float) -> None:
    """Draw a white rowing boat with a blue stripe, wood inside, benches and oars."""
    length, frame = 3.7, turned(turn)
    u = np.linspace(0, 1, 37)  # From the stern to the stem.
    fore, aft = np.clip((u - 0.4) / 0.6, 0, 1), np.clip((0.4 - u) / 0.4, 0, 1)
    beam = 0.70 * (1 - fore**2.2 - 0.3 * aft**2)
    gunwale = 0.42 + 0.36 * np.clip((u - 0.35) / 0.65, 0, 1) ** 2 + 0.06 * aft**2
    keel = -0.15 + 0.30 * np.clip((u - 0.7) / 0.3, 0, 1) ** 2
    bend = np.linspace(0, np.pi / 2, 12)[:, None]  # From the gunwale down to the keel.
    half = beam * np.cos(bend) ** 0.65
    height = gunwale + (keel - gunwale) * np.sin(bend) ** 1.3
    rake = 0.55 * (height - keel) * np.clip((u - 0.6) / 0.4, 0, 1) ** 2  # The stem leans out.
    lengthwise = (u - 0.5) * length + rake

    def hull_paint(outside):
        return lambda u, v, facing: (np.array(outside if facing > 0 else (0.30, 0.165, 0.075)), 0.0)

    white, blue = hull_paint((0.70, 0.69, 0.64)), hull_paint((0.06, 0.16, 0.34))
    for side in (-1, 1):
        hull = np.stack([lengthwise, height, side * half], -1) @ frame + np.asarray(center)
        for row, k in np.ndindex(len(bend) - 1, len(u) - 1):
            quad = hull[[row, row, row + 1, row + 1], [k, k + 1, k + 1, k]][::-side]
            for corners in (quad[[0, 1, 2]], quad[[0, 2, 3]]):
                draw_polygon(view, corners, blue if row < 2 else white)
    stern = np.stack([lengthwise[:, 0], height[:, 0], half[:, 0]], -1)
    stern = np.concatenate([stern, stern[-2::-1] * [1, 1, -1]])
    draw_polygon(view, (stern @ frame + np.asarray(center))[::-1], white)

    def inside(x, y, z, size, paint):
        draw_box(view, np.asarray(center) + np.array([x, y, z]) @ frame, size, paint, turn)

    for x, wide in ((-1.2, 0.48), (-0.2, 0.56), (0.7, 0.40)):
        inside(x, 0.30, 0, (0.14, 0.02, wide), wood((0.33, 0.20, 0.10), board=0.15, seed=9))
    for z in (-0.25, 0.25):
        inside(-0.1, 0.46, z, (1.2, 0.025, 0.03), plain((0.42, 0.28, 0.14)))
