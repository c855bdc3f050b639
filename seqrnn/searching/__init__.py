"""What --mode=search is made of."""
