"""What tuples are made from: digits and backgrounds, or pictures from outside."""
