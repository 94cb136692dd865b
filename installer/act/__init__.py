"""A plan becomes an installed machine. The only folder with side effects on disks."""
