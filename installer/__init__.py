"""Netinstall: an unattended NixOS installer for machines that boot from the network."""

__version__ = "0.1.0"
