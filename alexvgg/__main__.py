"""`python -m alexvgg`, for launchers like torchrun that start a module."""

from alexvgg.cli import main

main()
