"""`python -m lemond_adapter` is the command line."""

from lemond_adapter.cli import main

main()
