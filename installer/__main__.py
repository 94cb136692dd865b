"""`python -m installer` is `netinstall`."""

from installer.cli import main

main()
