"""The jaxstyle command. Heavy imports wait in the commands, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxstyle.commands import options
from jaxstyle.config import MAX_PIXELS, PADDINGS, PRESETS, did_you_mean
from jaxstyle.errors import UserError

_STYLIZE_NOTES = """\
presets:
{presets}

examples:
  jaxstyle stylize photo.jpg painting.jpg -o out.png
  jaxstyle stylize photo.jpg wave.jpg mosaic.jpg -o out.png --style-weights 0.7,0.3
  jaxstyle stylize photos/ painting.jpg -o out/ --size 1024

Ctrl-C writes the best picture so far; a second Ctrl-C quits at once.

exit codes: 0 all is done; 1 some pictures of a folder failed; 2 a mistake in the
command or in a file; 130 stopped by Ctrl-C (143 by SIGTERM)
"""

_WEIGHTS_NOTES = """\
examples:
  jaxstyle weights list
  jaxstyle weights fetch vgg19
  jaxstyle weights convert vgg19.h5 vgg19.safetensors --half
  jaxstyle weights convert runs/lite lite.safetensors
"""

_TRAIN_NOTES = """\
examples:
  jaxstyle train --config lite --workdir runs/lite
  jaxstyle train --config configs/lite.py --workdir gs://bucket/lite --set batch_size=64
  jaxstyle train --config lite --workdir runs/lite --set optimizer.learning_rate=1e-3

The folder gets checkpoints, metrics.jsonl, samples/ and, at the end, curves.png. Where it has
checkpoints, the run goes on from the last one. Ctrl-C and SIGTERM finish the step and save it; a
second one quits at once.

exit codes: 0 all steps are done, or stopped with a checkpoint; 1 the numbers became
infinite or NaN; 2 a mistake in the command or in a file; 130 quit at once by a second
Ctrl-C (143 by SIGTERM)
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, with the nearest option as a suggestion."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def check_options(self, arguments: Sequence[str]) -> None:
        """Refuses unknown options before argparse, which would speak of something else."""
        known = self._option_string_actions
        for argument in arguments:
            if argument == "--":
                return
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in known:
                self.error(f"unknown option {name}{did_you_mean(name, known)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: what follows the name of the program; those of this process by default.

    Returns:
        The exit code: 0 for success, 1 where some pictures of a folder failed, 2 for a mistake in
        the command or in a file (one line on standard error says which), 130 after Ctrl-C, 143
        after SIGTERM.
    """
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("jaxstyle: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _complain(f"{name}{error.strerror or error}")


def _complain(message: str) -> int:
    print(f"jaxstyle: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _dispatch(arguments: list[str]) -> int:
    parser, commands = _build_parsers()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    name, *rest = arguments
    if name in ("-h", "--help"):
        parser.print_help()
        return 0
    if name == "--version":
        print(f"jaxstyle {_version()}")
        return 0
    if name not in commands:
        parser.check_options([name])
        near = did_you_mean(name, commands)
        parser.error(f"unknown command {name!r}{near} (one of {', '.join(commands)})")
    rest = options.bind_bare_options(rest)
    commands[name].check_options(rest)
    if "-h" in rest or "--help" in rest:
        commands[name].print_help()
        return 0
    parsed = commands[name].parse_intermixed_args(rest)  # options may stand between pictures
    return importlib.import_module(f"jaxstyle.commands.{name}").run(parsed)


def _version() -> str:
    from jaxstyle import __version__

    return __version__


def _build_parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="jaxstyle",
        description="Neural style transfer: a photo and a painting in, a picture out.",
        epilog="`jaxstyle COMMAND --help` says more about a command.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    width = max(map(len, PRESETS))
    presets = [f"  {name:{width}}  {preset.summary}" for name, preset in PRESETS.items()]
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    stylize = commands.add_parser(
        "stylize",
        help="paint a photo in the style of a painting",
        description="Paints CONTENT in the style of STYLE by optimising its pixels "
        "(Gatys et al. 2016).",
        usage="jaxstyle stylize CONTENT STYLE [STYLE ...] -o OUT [options]",
        epilog=_STYLIZE_NOTES.format(presets="\n".join(presets)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(stylize)
    _add_run_options(stylize)
    settings = stylize.add_argument_group(
        "settings (what is given goes before the preset; the defaults are those of `default`)"
    )
    settings.add_argument(
        "--preset",
        type=options.one_of(PRESETS),
        default="default",
        metavar="|".join(PRESETS),
        help="where all other settings come from; see below (default: default)",
    )
    options.add_config_options(settings)
    weights = commands.add_parser(
        "weights",
        help="list, fetch or convert the parameters of feature networks",
        description="Lists the feature networks that --features can name, fetches one, or writes "
        "one as safetensors.",
        epilog=_WEIGHTS_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    weights.add_argument(
        "action", type=options.one_of(("list", "fetch", "convert")), metavar="list|fetch|convert"
    )
    weights.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="what to fetch, as `list` says it; or what to convert: a name, a file, or the folder "
        "of a run of the method distill",
    )
    weights.add_argument("target", nargs="?", type=Path, metavar="FILE", help="where to write it")
    weights.add_argument("--half", action="store_true", help="write numbers as float16")
    weights.add_argument(
        "--padding",
        type=options.one_of(PADDINGS),
        metavar="|".join(PADDINGS),
        help="padding to use the converted network with (default: its own)",
    )
    weights.add_argument(
        "--overwrite", action="store_true", help="replace a file that is there already"
    )
    weights.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    train = commands.add_parser(
        "train",
        help="train a method, and go on with what was begun",
        description="Trains what a configuration describes.",
        usage="jaxstyle train --config NAME|FILE --workdir DIR [options]",
        epilog=_TRAIN_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_train_options(train)
    return parser, {"stylize": stylize, "train": train, "weights": weights}


def _add_train_options(parser: _Parser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME|FILE",
        help="a configuration that comes with jaxstyle, or a Python file with get_config()",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder of the run, as in gs://bucket/run"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replace a setting of the configuration; may be given many times",
    )
    parser.add_argument(
        "--device",
        type=options.one_of(("cpu", "gpu", "tpu")),
        metavar="cpu|gpu|tpu",
        help="what to compute on, all there are of them (default: JAX's own choice)",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the metrics for TensorBoard, too"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    processes = parser.add_argument_group(
        "several processes (all three; none of them where a TPU pod or Slurm says it)"
    )
    processes.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where the first process listens"
    )
    processes.add_argument(
        "--num-processes", type=options.whole_number(1), metavar="N", help="how many there are"
    )
    processes.add_argument(
        "--process-id", type=options.whole_number(0), metavar="I", help="which one this is, from 0"
    )


def _add_files(parser: _Parser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "content", type=Path, metavar="CONTENT", help="the picture to paint, or a folder of them"
    )
    files.add_argument(
        "styles",
        type=Path,
        nargs="+",
        metavar="STYLE",
        help="the picture to take the style from; several are blended",
    )
    files.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help=".png, .jpg or .webp; a folder if CONTENT is one: pictures already there are skipped",
    )
    files.add_argument(
        "--overwrite", action="store_true", help="replace files that are there already"
    )
    files.add_argument(
        "--features",
        metavar="lite|vgg19|vgg16|random|FILE",
        help="network whose features are compared (default: the first of these that is at hand)",
    )
    files.add_argument(
        "--preview", type=Path, metavar="FILE", help="write the picture here as it develops"
    )
    files.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write the loss terms of every step as JSON lines; where the name ends in .png, a "
        "plot of them, and the lines beside it as .jsonl",
    )
    files.add_argument(
        "--quality",
        type=options.whole_number(1, 100),
        default=95,
        metavar="N",
        help="quality of JPEG and WebP, 1 to 100 (default: 95)",
    )
    files.add_argument(
        "--max-pixels",
        type=options.whole_number(1),
        default=MAX_PIXELS,
        metavar="N",
        help="refuse to read larger pictures (default: 100000000)",
    )


def _add_run_options(parser: _Parser) -> None:
    run = parser.add_argument_group("run")
    run.add_argument(
        "--style-weights",
        type=options.weight_list,
        metavar="X,X,...",
        help="shares of several styles (default: equal)",
    )
    run.add_argument(
        "--padding",
        type=options.one_of(("auto", *PADDINGS)),
        default="auto",
        metavar="auto|zero|reflect|replicate",
        help="border of the features' convolutions (default: auto, as the features want it)",
    )
    run.add_argument(
        "--device", metavar="NAME", help="cpu, gpu, tpu, or one of several, as in cuda:1"
    )
    run.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
