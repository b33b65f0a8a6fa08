"""What a person at a terminal sees and controls: the four processes and their numbers."""
