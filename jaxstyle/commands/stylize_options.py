"""The options of `jaxstyle stylize`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxstyle.commands import options, processes
from jaxstyle.config import PRESETS

_NOTES = """\
presets:
{presets}

examples, with paintings:
  jaxstyle stylize photo.jpg painting.jpg -o out.png
  jaxstyle stylize photo.jpg wave.jpg mosaic.jpg -o out.png --style-weights 0.7,0.3
  jaxstyle stylize photos/ painting.jpg -o out/ --size 1024
  jaxstyle stylize photo.jpg painting.jpg -o out.png --size 4096 --shard
  jaxstyle stylize photo.jpg painting.jpg -o out.png --size 6000 --memory 4GiB --state states/
  jaxstyle stylize photo.jpg painting.jpg -o out.png --size 6000 --tile 512

examples, with paintings in one go (--method adain):
  jaxstyle stylize photo.jpg painting.jpg --method adain -o out.png --strength 0.8
  jaxstyle stylize photo.jpg wave.jpg mosaic.jpg --method adain -o strip.png --interpolate 5
  jaxstyle stylize photos/ paintings/ --method adain -o out/
  jaxstyle stylize photo.jpg wave.jpg mosaic.jpg --method adain -o out.png \\
      --content-mask sky-black-land-white.png

examples, with a trained model:
  jaxstyle stylize photo.jpg --style wave -o out.png
  jaxstyle stylize photo.jpg --style-weights wave=0.7,mosaic=0.3 -o out.png
  jaxstyle stylize photo.jpg --style wave,mosaic --interpolate 5 -o strip.png
  jaxstyle stylize photos/ --model runs/wave -o out/ --strength 0.8 --keep-colors

A painting may be optimised for, which takes a minute (--method gatys, the default), or be encoded
by a network that paints in any style in one go (--method adain). That one and trained models keep
the size of the photo unless --size says otherwise, and what is about optimising pixels, as
--preset, --steps and --features are, does not go with them. A trained model has its styles in it:
with it, --keep-colors acts on what it has painted.

Masks are pictures with a plain colour for each region: the same colour in --content-mask and in
--style-mask is the same region. Without --style-mask, the regions get the paintings in the order
of their luminance, from dark to light; a grey mask for two paintings may be soft.

When pixels are optimised, Ctrl-C writes the best picture so far, and a second Ctrl-C quits at once.

exit codes: 0 all is done; 1 some pictures of a folder failed; 2 a mistake in the
command or in a file; 130 stopped by Ctrl-C (143 by SIGTERM)
"""


def add_parser(commands: Any) -> Any:
    """Adds the command; its parser."""
    width = max(map(len, PRESETS))
    presets = [f"  {name:{width}}  {preset.summary}" for name, preset in PRESETS.items()]
    parser = commands.add_parser(
        "stylize",
        help="paint a photo in the style of a painting",
        description="Paints CONTENT in the style of STYLE by optimising its pixels "
        "(Gatys et al. 2016), or, in one go, with a network: for any STYLE, or in a style that it "
        "was trained in.",
        usage="jaxstyle stylize CONTENT STYLE [STYLE ...] -o OUT [options]\n"
        "       jaxstyle stylize CONTENT --style NAME [--model DIR|FILE] -o OUT [options]",
        epilog=_NOTES.format(presets="\n".join(presets)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(parser)
    _add_run_options(parser)
    processes.add_options(parser, beside=", with --shard")
    _add_model_options(parser)
    settings = parser.add_argument_group(
        "settings of --method gatys (what is given goes before the preset; the defaults are those "
        "of `default`; --size and --keep-colors serve the other ways, too)"
    )
    options.add_preset_option(settings, see="; see below")
    options.add_config_options(settings)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "content", type=Path, metavar="CONTENT", help="the picture to paint, or a folder of them"
    )
    files.add_argument(
        "styles",
        type=Path,
        nargs="*",
        metavar="STYLE",
        help="the picture to take the style from; several are blended; with --method adain, a "
        "folder gives a picture for each in it; none with a trained model",
    )
    files.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help=".png, .jpg, .webp or .tif; a folder if CONTENT or STYLE is one: pictures already "
        "there are skipped",
    )
    options.add_overwrite_option(files)
    options.add_features_option(files)
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
        "--state",
        type=Path,
        metavar="DIR",
        help="keep the state of the optimisation there, every minute: the same command goes on "
        "from it after a kill, and removes it at the end",
    )
    options.add_picture_options(files)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("run")
    run.add_argument(
        "--method",
        type=options.one_of(options.METHODS),
        metavar="|".join(options.METHODS),
        help="how to paint like STYLE: by optimising pixels, or in one go (default: "
        f"{options.DEFAULT_METHOD}; adain with --model)",
    )
    run.add_argument(
        "--style-weights",
        type=options.shares,
        metavar="X,X,...|NAME=X,...",
        help="shares of several paintings (default: equal), or of a trained model's styles by name",
    )
    options.add_padding_option(run)
    run.add_argument(
        "--tile",
        type=options.tile,
        metavar="auto|N|off",
        help="compute large pictures in tiles of N pixels, which saves memory and does not show "
        "(default: auto, where the picture is large)",
    )
    options.add_memory_option(run)
    run.add_argument(
        "--shard",
        action="store_const",
        const=True,
        help="spread the rows of the picture over all devices, with the same result; over those of "
        "several processes, too; for optimising pixels",
    )
    options.add_device_options(run)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    trained = parser.add_argument_group("trained models, and --method adain")
    options.add_model_option(trained)
    trained.add_argument(
        "--style",
        metavar="NAME",
        help="which of the model's styles (`jaxstyle styles` lists them), in place of STYLE; "
        "needed where there are several; two, as NAME,NAME, with --interpolate",
    )
    trained.add_argument(
        "--strength",
        type=options.number(0, 1),
        metavar="S",
        help="from 0, the photo, to 1, painted (default: 1)",
    )
    trained.add_argument(
        "--interpolate",
        type=options.whole_number(2),
        metavar="N",
        help="write a strip of N pictures side by side, from the first of two styles to the "
        "second; with one STYLE, from strength 0 to 1",
    )
    trained.add_argument(
        "--style-size",
        type=options.whole_number(0),
        metavar="N",
        help="longer side of STYLE, in pixels; 0 to leave it; none is enlarged; adain only "
        "(default: 512)",
    )
    trained.add_argument(
        "--content-mask",
        type=Path,
        metavar="FILE",
        help="regions of CONTENT by colour; a folder of masks of the same names if CONTENT is one; "
        "adain only",
    )
    trained.add_argument(
        "--style-mask",
        type=Path,
        action="append",
        metavar="FILE",
        help="regions of STYLE by the same colours; once for each STYLE, in their order; adain "
        "only",
    )
