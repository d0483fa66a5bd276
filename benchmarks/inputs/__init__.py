"""What happens to odd and bad input, row by row: a catalogue that is run, not just written."""
