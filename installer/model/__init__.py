"""What everything talks about: typed data, no input or output, nothing of ours imported."""
