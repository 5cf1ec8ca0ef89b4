"""`jaxstyle stylize` with paintings: the pixels of each picture are optimised."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxstyle import images, runtime, weights
from jaxstyle.commands import options, paths, processes
from jaxstyle.commands.beside import Beside
from jaxstyle.commands.making import Session, memory_named, note_tiles, write_picture
from jaxstyle.commands.progress import Moment, counted, duration
from jaxstyle.commands.resumption import Resumption, fingerprint, has_states, state_folder
from jaxstyle.config import INITS, PRESETS, StylizeConfig, did_you_mean, preset
from jaxstyle.errors import UserError
from jaxstyle.trace import TERMS, Trace, trace_files

if TYPE_CHECKING:
    from jaxstyle.methods.gatys import Iterate

_STATE_SECONDS = 60.0
_LARGE_SIDE = 4096  # smaller pictures are resized once, from what the file has
_PRESET = "default"


class Job(NamedTuple):
    """What all pictures of a run share.

    Attributes:
        config: settings.
        features: the network that judges.
        styles: the paintings, `[h, w, 3]` each.
        init: the picture to start from, if the user has one.
        arguments: as parsed by the command line.
    """

    config: StylizeConfig
    features: weights.Weights
    styles: list[np.ndarray]
    init: np.ndarray | None
    arguments: argparse.Namespace


def start(session: Session) -> tuple[list[paths.Task], Painter]:
    """Checks and reads all that the pictures share.

    Returns:
        The pictures to make, and what makes them.

    Raises:
        UserError: Bad input.
    """
    arguments, progress = session.arguments, session.progress
    tasks, claimed = _check_paths(arguments)
    job = _load(arguments)
    _check_claims(claimed, tasks, job)
    if job.features.name == "random" and arguments.features is None:
        progress.note(
            "no trained features at hand: random ones stand in; for far better pictures run "
            "`jaxstyle weights fetch vgg19` once, or pass --features FILE"
        )
    devices = _start_devices(session)
    import jax

    if devices is not None:
        tasks = _as_in_first(tasks)
    _check_layers(job)
    trace = None
    if arguments.trace is not None and jax.process_index() == 0:
        trace = session.stack.enter_context(Trace(arguments.trace))
    return tasks, Painter(job, session, trace, devices)


def _start_devices(session: Session) -> Sequence[Any] | None:
    """Sets up JAX; the devices that share each picture, or None for one that has it."""
    arguments, progress = session.arguments, session.progress
    if not arguments.shard:
        for name in processes.NAMES:
            if getattr(arguments, name) is not None:
                raise UserError(f"{options.option_name(name)} goes with --shard")
        runtime.prepare(device=arguments.device, warn=progress.note)
        import jax

        session.stack.enter_context(jax.default_device(runtime.find_device(arguments.device)))
        return None
    if arguments.device not in (None, "cpu", "gpu", "tpu"):
        raise UserError(
            "--shard is for all devices of a kind: expected --device cpu, gpu or tpu; got "
            f"{arguments.device!r}"
        )
    processes.start_jax(arguments, progress)
    import jax

    if arguments.state is not None and jax.process_count() > 1:
        raise UserError("--state is for one process: leave it out, or --coordinator")
    session.stack.enter_context(jax.default_device(jax.local_devices()[0]))
    devices = jax.devices()
    processes_there = counted(jax.process_count(), "process", "processes")
    progress.note(f"rows are spread over {counted(len(devices), 'device')} of {processes_there}")
    return devices


def _as_in_first(tasks: list[paths.Task]) -> list[paths.Task]:
    """Which pictures are done, as the process knows it that writes them."""
    from jaxstyle.training import parallel

    done = parallel.as_in_first([task.done for task in tasks])
    return [task._replace(done=there) for task, there in zip(tasks, done, strict=True)]


# Before anything is computed


def _check_paths(arguments: argparse.Namespace) -> tuple[list[paths.Task], list[Path]]:
    """The pictures to make; raises UserError if a file would be lost or cannot be written.

    Returns:
        The pictures, and the files that may only be replaced if a state says that they are of the
        run that goes on: see `_check_claims`.
    """
    read = list(arguments.styles)
    start = getattr(arguments, "init", None)
    if start is not None and start not in INITS:
        read.append(Path(start))
    overwrite = arguments.overwrite
    going_on = _may_go_on(arguments)
    # What a run that was stopped has written by then is its own.
    replaced = (
        going_on and not arguments.content.is_dir() and paths.left_unfinished(arguments.output)
    )
    tasks = paths.plan(arguments.content, arguments.output, read, overwrite=overwrite or replaced)
    # A folder of that name is no picture, and refused in its turn.
    tasks = [task._replace(done=task.done and task.output.is_file()) for task in tasks]
    read += [task.content for task in tasks]
    written = [task.output for task in tasks]
    beside = _beside(arguments)
    if arguments.preview is not None:
        images.check_output_path(arguments.preview)
    for path in beside:
        paths.check_new(path, read, overwrite=overwrite or going_on)
        if any(paths.same_file(path, other) for other in written):
            raise UserError(f"{path} is to be written twice: give each its own name")
        written.append(path)
    if overwrite or not going_on:
        return tasks, []
    claimed = [*beside, arguments.output] if replaced else beside
    return tasks, [path for path in claimed if path.exists()]


def _beside(arguments: argparse.Namespace) -> list[Path]:
    """The files that are written besides the pictures."""
    preview = [] if arguments.preview is None else [arguments.preview]
    trace = () if arguments.trace is None else trace_files(arguments.trace)
    return [*preview, *(path for path in trace if path is not None)]


def _may_go_on(arguments: argparse.Namespace) -> bool:
    """Whether there is a state to go on from; raises UserError if none can be kept there.

    Whether it is of this run is known when the pictures have been read.
    """
    folder: Path | None = arguments.state
    if folder is None:
        return False
    paths.check_folder(folder)
    if not arguments.content.is_dir():
        return has_states(state_folder(folder, arguments.output))
    return folder.is_dir() and any(map(has_states, folder.glob("*.state")))


def _check_claims(claimed: list[Path], tasks: list[paths.Task], job: Job) -> None:
    """Refuses to replace files of which no state says that this very run wrote them."""
    if not claimed:
        return
    own = set()
    for task in tasks:
        if not task.done and has_states(state_folder(job.arguments.state, task.output)):
            content = load_large(task.content, job.config.size, job.arguments)
            own.update(_resumption(job, task, content.pixels).files())
    for path in claimed:
        paths.check_new(path, [], overwrite=str(path.absolute()) in own)


def _resumption(job: Job, task: paths.Task, content: np.ndarray) -> Resumption:
    """Where the state of a picture is kept."""
    arguments = job.arguments
    init = [] if job.init is None else [job.init]
    name = fingerprint(
        *(content, *job.styles, *init, arguments.style_weights),
        *((job.features.sha256, job.features.padding), job.config, options.tile_of(arguments)),
    )
    files = [task.output, *_beside(arguments)]
    return Resumption(state_folder(arguments.state, task.output), name, files=files)


def _load(arguments: argparse.Namespace) -> Job:
    """Reads and checks what all pictures share."""
    styles, shares = arguments.styles, arguments.style_weights
    if shares is not None and len(shares) != len(styles):
        raise UserError(
            f"--style-weights has {len(shares)} weights, but there are {len(styles)} styles: give "
            "one weight for each"
        )
    given = vars(arguments).copy()
    start = None  # the file to start from, if there is one
    if given.get("init") not in (None, *INITS):
        start = given.pop("init")
        if not Path(start).exists():
            near = did_you_mean(start, INITS)
            raise UserError(f"--init: neither {', '.join(INITS)} nor a file: {start!r}{near}")
    features = weights.load(arguments.features or _own_features(arguments.preset or _PRESET))
    if arguments.padding not in (None, "auto"):
        features = features._replace(padding=arguments.padding)
    chosen = preset(arguments.preset or _PRESET, scale=features.scale, heads=features.heads)
    config = options.overridden(chosen, given)
    init = None if start is None else load_large(start, config.size, arguments).pixels
    seen = round(config.size * config.style_scale)
    pictures = [load_large(path, seen, arguments).pixels for path in styles]
    return Job(config, features, pictures, init, arguments)


def load_large(path: images.PathLike, size: int, arguments: argparse.Namespace) -> images.Picture:
    """A picture that is wanted at a size, in strips if it is much larger than that.

    Args:
        path: of the file.
        size: longer side, in pixels; what is larger than _LARGE_SIDE, too, is shrunk to it.
        arguments: as parsed by the command line.

    Raises:
        UserError: it cannot be read, or is too large for what `--max-pixels` says.
    """
    side = max(size, _LARGE_SIDE)
    return images.load(path, max_pixels=arguments.max_pixels, longer_side=side)


def _own_features(name: str) -> str:
    """The features that a preset is meant for, if they are at hand, or else what there is."""
    wanted = PRESETS[name].features
    here = [row.name for row in weights.list_weights() if row.state == "cached"]
    return wanted if name != "default" and wanted in here else weights.default_spec()


def _check_layers(job: Job) -> None:
    from jaxstyle.features import check_layers

    try:
        check_layers(job.features.params, [*job.config.content_layers, *job.config.style_layers])
    except ValueError as error:
        raise UserError(f"{job.features.name}: {error}") from error


# The pictures


class Painter:
    """Makes pictures, showing and recording how each comes about.

    Attributes:
        job: what all of them share.
    """

    def __init__(
        self,
        job: Job,
        session: Session,
        trace: Trace | None,
        devices: Sequence[Any] | None = None,
    ) -> None:
        import jax

        self.job = job
        self._devices = devices
        # One process speaks and writes for all.
        self._speaks = jax.process_index() == 0
        self._session = session
        self._progress = session.progress
        self._stop = session.stop
        preview = job.arguments.preview if self._speaks else None
        self._beside = Beside(session, trace, preview)

    def paint(self, task: paths.Task, *, label: str = "") -> bool:
        """Makes one picture, or as much of it as there is when the user wants no more.

        Args:
            task: the files; those of a folder are named in the trace.
            label: how progress calls it.

        Returns:
            Whether it is finished.

        Raises:
            UserError: The content cannot be read, the picture cannot be written, or the loss
                is no number.
        """
        from jaxstyle.methods import gatys_scales

        content = self._read(task.content)
        height, width = content.pixels.shape[:2]
        sizes = gatys_scales.scale_sizes(height, width, self.job.config)
        images.check_output_path(task.output, size=sizes[-1])
        self._stop.can_save = False
        if self.job.arguments.state is None:
            return self._paint(task, label, content, sizes, None)
        resumption = _resumption(self.job, task, content.pixels)
        with resumption.held():
            return self._paint(task, label, content, sizes, resumption)

    def _paint(
        self,
        task: paths.Task,
        label: str,
        content: images.Picture,
        sizes: list[tuple[int, int]],
        resumption: Resumption | None,
    ) -> bool:
        """Makes a picture of what was read, at some scales; whether it is finished."""
        from jaxstyle.methods import gatys_scales

        begun = time.monotonic()
        counts = gatys_scales.scale_steps(self.job.config, len(sizes))
        work = [
            (height * width, steps) for (height, width), steps in zip(sizes, counts, strict=True)
        ]
        self._progress.begin(label, work)
        memory = self._memory(sizes[-1], resumption)
        self._say_tiles(sizes[-1], memory)
        last, steps = self._optimise(
            content.pixels, task.content.name if label else None, sizes, memory, resumption
        )
        self._progress.end()
        finished = (last.scale, last.step) == (last.scales, last.steps)
        pixels = np.asarray(last.image)
        made_by = _made_by(self.job, task.content, None if finished else last)
        if not self._speaks:
            return finished
        write_picture(self._session, task.output, pixels, content.alpha, made_by)
        if finished and resumption is not None:
            resumption.finish()
        done = (
            f"{task.output}: {pixels.shape[1]} x {pixels.shape[0]} pixels, "
            f"{counted(steps, 'step')}, {duration(time.monotonic() - begun)}"
        )
        if finished:
            self._progress.note(done)
        else:
            self._progress.complain(f"stopped early; the picture so far is in {done}")
        return finished

    def _read(self, path: Path) -> images.Picture:
        """The content; where a process cannot read it, none begins with it."""
        found, problem = None, None
        try:
            found = load_large(path, self.job.config.size, self.job.arguments)
        except (UserError, OSError) as error:
            problem = error
        if self._in_any(problem is not None) or found is None:
            raise problem or UserError(f"{path} cannot be read by another process")
        return found

    def _memory(self, size: tuple[int, int], resumption: Resumption | None) -> int | None:
        """What an update may take; a run that goes on keeps to it, or its tiles would be others."""
        from jaxstyle.methods import gatys_layout

        arguments = self.job.arguments
        cutting = gatys_layout.Cutting(options.tile_of(arguments), arguments.memory)
        held = gatys_layout.host_bytes(size, self.job.features.params, self.job.config)
        usual = cutting.settled(size, held=held).memory
        if resumption is None:
            return usual
        return resumption.agree_on(usual, given=arguments.memory is not None)

    def _say_tiles(self, size: tuple[int, int], memory: int | None) -> None:
        """Says how a large picture is computed, and where that is more than what it may take."""
        from jaxstyle.methods import gatys_layout, gatys_sharded

        tile = options.tile_of(self.job.arguments)
        cutting = gatys_sharded.cutting(tile, memory, self._devices, size)
        params, config = self.job.features.params, self.job.config
        side = cutting.of(params, config, size)
        note_tiles(self._progress, self.job.arguments, size, side)
        if self.job.arguments.memory is None or cutting.memory is None:
            return
        layers, pixels = gatys_layout.layers_of(config), math.prod(size)
        if side is not None:
            pixels = min(pixels, (side + 2 * gatys_layout.reach(params, layers)) ** 2)
        needed = int(gatys_layout.bytes_per_pixel(params, layers) * pixels)
        if needed > cutting.memory:
            how = "of the whole" if side is None else f"in tiles of {side} pixels"
            least = "" if tile != "auto" else ", and less than that cannot be had"
            self._progress.note(
                f"--memory is not enough: an update {how} takes about {needed / 2**20:.0f} MiB"
                f"{least}"
            )

    def _optimise(
        self,
        content: np.ndarray,
        picture: str | None,
        sizes: list[tuple[int, int]],
        memory: int | None,
        resumption: Resumption | None,
    ) -> tuple[Iterate, int]:
        """The last iterate, and how many there were."""
        from jaxstyle.methods import gatys

        job, begun = self.job, time.monotonic()
        resume = None if resumption is None else resumption.latest(sizes, job.config)
        if resume is not None:
            self._progress.note(f"going on after step {resume.step} of scale {resume.scale}")
            self._beside.go_on(resume, picture)
        due = time.monotonic() + _STATE_SECONDS
        try:
            iterates = gatys.stylize(
                content,
                job.styles,
                features=job.features,
                config=job.config,
                style_weights=job.arguments.style_weights,
                init=job.init,
                tile=options.tile_of(job.arguments),
                memory=memory,
                resume=resume,
                devices=self._devices,
            )
        except ValueError as error:  # it checks what it is given before it begins
            raise UserError(str(error)) from error
        last, late, steps = None, None, 0
        with memory_named(f"at --size {job.config.size}: try a smaller one"):
            for iterate in iterates:
                self._stop.can_save = True
                stopped = self.stopped()
                if late is not None:
                    self._report(late, begun, picture)
                more = (iterate.scale, iterate.step) != (iterate.scales, iterate.steps)
                keeper = resumption if more and (stopped or time.monotonic() >= due) else None
                # Losses are read a step late, so that the device need not wait for us; but not at
                # the end of a scale, where the compiler may come next, nor after what is kept, lest
                # a run that goes on from there leaves it out of its trace.
                last, late, steps = iterate, iterate, steps + 1
                if keeper or stopped or iterate.step == iterate.steps:
                    self._report(iterate, begun, picture)
                    late = None
                if keeper:
                    self._beside.keep(keeper, self._whole(iterate))
                    due = time.monotonic() + _STATE_SECONDS
                if stopped:
                    break
                self._beside.show(iterate)
        assert last is not None  # settings have at least one step
        return last, steps

    def stopped(self) -> bool:
        """Whether the user wants no more: in all processes at the same step."""
        if self._in_any(self._stop.number != 0):
            self._stop.join(signal.SIGINT)
        return self._stop.number != 0

    def _in_any(self, flag: bool) -> bool:
        """Whether it is set in any process that shares the picture; all ask at the same place."""
        if self._devices is None:
            return flag
        from jaxstyle.training import parallel

        return parallel.any_process(flag)

    def _whole(self, iterate: Iterate) -> Iterate:
        """With a state that does not depend on the number of devices."""
        from jaxstyle.methods import gatys_sharded

        if self._devices is None:
            return iterate
        state = gatys_sharded.to_host(iterate.state, iterate.image.shape[0])
        return iterate._replace(state=state)

    def _report(self, iterate: Iterate, begun: float, picture: str | None) -> None:
        losses = {term: float(iterate.losses[term]) for term in TERMS}
        row: dict[str, Any] = {} if picture is None else {"picture": picture}
        row |= {"scale": iterate.scale, "step": iterate.step} | losses
        self._beside.trace(row | {"seconds": round(time.monotonic() - begun, 3)})
        if not math.isfinite(losses["total"]):
            raise UserError(
                f"the loss is {losses['total']} at step {iterate.step} of scale {iterate.scale}: "
                "try a smaller --learning-rate, or smaller weights"
            )
        moment = Moment(iterate.scale, iterate.scales, iterate.step, iterate.steps)
        self._progress.update(moment, losses)


def _made_by(job: Job, content: Path, stopped_at: Iterate | None) -> str:
    """What made the picture, as JSON without dates: the same run makes the same file."""
    from jaxstyle import __version__

    arguments, features = job.arguments, job.features
    settings = dataclasses.asdict(job.config)
    if job.init is not None:
        settings["init"] = Path(arguments.init).name
    record: dict[str, Any] = {
        "version": __version__,
        "content": content.name,
        "styles": [path.name for path in arguments.styles],
        "style_weights": arguments.style_weights,
        "features": {
            "name": features.name,
            "sha256": features.sha256,
            "padding": features.padding,
            "scale": features.scale,
        },
        "preset": arguments.preset or _PRESET,
        "settings": settings,
        "finished": stopped_at is None,
    }
    if stopped_at is not None:
        record |= {"scale": stopped_at.scale, "step": stopped_at.step}
    return json.dumps(record)
