"""Jobs in containers, through an engine that speaks Docker's API: Docker itself, or Podman."""
