"""`python -m tlog.cli`, the same as `tlog`."""

from tlog.cli.app import main

if __name__ == "__main__":
    main()
