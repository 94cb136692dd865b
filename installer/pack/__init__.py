"""Packing a system: from a folder, a store or a tarball to NAME.tar.zst, NAME.json and signature.

The server's side: nothing here is needed in the boot environment. docs/payload-format.md has the
format.
"""
