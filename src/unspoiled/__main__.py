"""`python -m unspoiled`."""

from unspoiled.cli import main

main()
