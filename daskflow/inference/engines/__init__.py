"""What can run a network; each file imports its framework only when it is used."""
