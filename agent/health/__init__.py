"""What a node finds out about its own health."""
