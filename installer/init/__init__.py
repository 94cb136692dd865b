"""What runs as PID 1: a writable root, devices, the installation in a child, and the end."""
