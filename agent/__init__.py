"""What runs on a node: one supervisor process a replica, and the daemon that speaks for them all."""
