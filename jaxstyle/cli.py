"""The jaxstyle command. Heavy imports wait in the commands, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxstyle import runtime
from jaxstyle.commands import options, processes, sheet_options, stylize_options
from jaxstyle.config import PADDINGS, did_you_mean
from jaxstyle.errors import UserError, reason_of

_STYLES_NOTES = """\
examples:
  jaxstyle styles
  jaxstyle styles photo.jpg -o sheet.png
  jaxstyle styles photo.jpg -o sheet.png --model runs/wave --size 384 --columns 4

Each name goes with `jaxstyle stylize PHOTO --style NAME -o OUT`, and several can be mixed:
--style-weights wave=0.7,mosaic=0.3.
"""

_WEIGHTS_NOTES = """\
examples:
  jaxstyle weights list
  jaxstyle weights fetch vgg19
  jaxstyle weights convert vgg19.h5 vgg19.safetensors --half
  jaxstyle weights convert runs/lite lite.safetensors
  jaxstyle weights convert runs/wave wave.safetensors --half

Out of a run of adain or residual, as runs/wave, comes a model for `jaxstyle stylize --model`.
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


_SWEEP_NOTES = """\
examples:
  jaxstyle sweep --config resnet_in_paper --workdir runs/rates \\
      --vary optimizer.learning_rate=1e-4,1e-3,1e-2
  jaxstyle sweep --config resnet_in --workdir runs/norms --vary model.norm=instance,batch,none

Each value has a run in a folder of its own, as runs/norms/model.norm=batch, and the folder gets
comparison.md and comparison.png after each. The same command goes on with what was begun, and more
values may be added to it. Ctrl-C and SIGTERM stop all with a checkpoint, and a run whose numbers
become infinite or NaN is reported and left.

exit codes: 0 all runs are done, or stopped with a checkpoint; 1 the numbers of a run
became infinite or NaN; 2 a mistake in the command or in a file; 130 quit at once by a
second Ctrl-C (143 by SIGTERM)
"""


_EVALUATE_NOTES = """\
examples:
  jaxstyle evaluate --config eval_papers --output results \\
      --set content=photos --set style=paintings
  jaxstyle evaluate --config eval_papers --output results --quick ...    # a look in a minute or two
  jaxstyle evaluate --config eval_papers --output results --survey ratings ...

The folder gets report.html, tables/ (Markdown, CSV, JSON), plots and contact sheets. What it has of
pictures and figures already is not made again: the same command goes on where it was stopped.
docs/evaluation.md explains the protocols. --survey writes a page for people who rate the pictures;
`jaxstyle survey` makes a table of what they send back.

exit codes: 0 done; 2 a mistake in the command or in a file; 130 stopped by Ctrl-C (143 by
SIGTERM), with what was made kept
"""

_SURVEY_NOTES = """\
examples:
  jaxstyle survey ratings/key.json answers-*.json
  jaxstyle survey ratings/key.json answers/ -o ratings.csv
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


def run(*first: str) -> int:
    """The command as a process of its own: `main`, with an allocator that suits it.

    Args:
        first: what comes before the arguments of this process.

    Returns:
        The exit code.
    """
    runtime.tune_allocator()  # before there is a second thread
    return main([*first, *sys.argv[1:]])


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
        code = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # here a reader that has left is met; at the end of Python it shows
        return code
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
        return _complain(f"{name}{reason_of(error)}")


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
    rest, last = _split(rest)
    rest = options.bind_bare_options(rest)
    commands[name].check_options(rest)
    if "-h" in rest or "--help" in rest:
        commands[name].print_help()
        return 0
    # Options may stand between pictures.
    parsed = commands[name].parse_intermixed_args([*rest, *last])
    parsed.typed = shlex.join(["jaxstyle", *arguments])
    return importlib.import_module(f"jaxstyle.commands.{name}").run(parsed)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--` and behind it, where all are names of files, dashes or not."""
    if "--" not in arguments:
        return arguments, []
    # argparse loses sight of the dashes where options may stand between names.
    place = arguments.index("--")
    names = (f"./{name}" if name.startswith("-") else name for name in arguments[place + 1 :])
    return arguments[:place], [*names]


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    stylize = stylize_options.add_parser(commands)
    styles = commands.add_parser(
        "styles",
        help="list the styles of a trained model, or show a photo in all of them",
        description="Lists the styles that come with jaxstyle, or those of a model, one a line. "
        "With PHOTO, writes a contact sheet: the photo, and the photo in each style.",
        usage="jaxstyle styles [--model DIR|FILE]\n"
        "       jaxstyle styles PHOTO -o SHEET [--model DIR|FILE] [options]",
        epilog=_STYLES_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_styles_options(styles)
    weights = commands.add_parser(
        "weights",
        help="list, fetch or convert the parameters of networks",
        description="Lists the feature networks that --features can name, fetches one, or writes "
        "one as safetensors, or a trained model.",
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
        "of a run of the methods adain, distill and residual",
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
    sweep = _add_sweep_options(commands)
    return parser, {
        "stylize": stylize,
        "styles": styles,
        "sheet": sheet_options.add_parser(commands),
        "train": train,
        "sweep": sweep,
        "evaluate": _add_evaluate_options(commands),
        "survey": _add_survey_options(commands),
        "weights": weights,
    }


def _add_sweep_options(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    """Adds the command: that of training, with a setting to vary."""
    parser = commands.add_parser(
        "sweep",
        help="train a configuration once for each value of a setting, and compare",
        description="Trains what a configuration describes, once for each value of one setting.",
        usage="jaxstyle sweep --config NAME|FILE --workdir DIR --vary NAME=VALUE,VALUE,... "
        "[options]",
        epilog=_SWEEP_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_train_options(parser)
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="NAME=VALUE,VALUE,...",
        help="the setting that differs, and its values; a comma within brackets is part of one",
    )
    return parser


def _add_evaluate_options(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        "evaluate",
        help="judge methods on photographs and paintings, and write a report",
        description="Paints photographs in the styles of paintings by several methods, and "
        "measures what comes out.",
        usage="jaxstyle evaluate --config NAME|FILE --output DIR [options]",
        epilog=_EVALUATE_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_config_options(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of the report"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small and few pictures: to see that all is there"
    )
    parser.add_argument(
        "--survey", type=Path, metavar="DIR", help="write a page for people to rate the pictures on"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a survey that is there already"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return parser


def _add_survey_options(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        "survey",
        help="make a table of the ratings that people sent back",
        description="Makes a table of ratings: means for each method, with 95% intervals.",
        usage="jaxstyle survey KEY ANSWERS [ANSWERS ...] [-o TABLE]",
        epilog=_SURVEY_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("key", type=Path, metavar="KEY", help="key.json, beside the page")
    parser.add_argument(
        "answers", type=Path, nargs="+", metavar="ANSWERS", help="JSON files, or folders of them"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="TABLE",
        help="write it, too: .md, .csv or .json; that of trials goes to TABLE-by-trial",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that is there already"
    )
    return parser


def _add_config_options(parser: _Parser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME|FILE",
        help="a configuration that comes with jaxstyle, or a Python file with get_config()",
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


def _add_train_options(parser: _Parser) -> None:
    _add_config_options(parser)
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder of the run, as in gs://bucket/run"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the metrics for TensorBoard, too"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    processes.add_options(parser)


def _add_styles_options(parser: _Parser) -> None:
    parser.add_argument("photo", type=Path, nargs="?", metavar="PHOTO", help="the picture to paint")
    options.add_model_option(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="SHEET",
        help="the contact sheet: .png, .jpg, .webp or .tif",
    )
    parser.add_argument(
        "--size",
        type=options.whole_number(1),
        metavar="N",
        help="longer side of each picture, in pixels (default: 256)",
    )
    parser.add_argument(
        "--columns",
        type=options.whole_number(1),
        metavar="N",
        help="pictures in a row (default: about as many as there are rows)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that is there already"
    )
    options.add_picture_options(parser)
    options.add_device_options(parser)
