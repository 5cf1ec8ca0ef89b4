"""`python -m jaxstyle` is the command `jaxstyle`."""

from jaxstyle.cli import run

if __name__ == "__main__":
    raise SystemExit(run())
