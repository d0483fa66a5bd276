"""Is what the package says of its own results true?"""
