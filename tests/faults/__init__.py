"""What seqrnn promises when processes, machines, disks and files fail."""
