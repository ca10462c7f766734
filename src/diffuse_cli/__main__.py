"""`python -m diffuse_cli` is the same as `diffuse`."""

from diffuse_cli.cli.app import main

if __name__ == "__main__":
    main()
