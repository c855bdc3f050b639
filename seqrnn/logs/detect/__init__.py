"""What --mode=detect is made of."""
