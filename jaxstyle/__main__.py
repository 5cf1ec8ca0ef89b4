"""`python -m jaxstyle` is the command `jaxstyle`."""

from jaxstyle.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
