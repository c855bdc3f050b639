"""What --mode=report is made of."""
