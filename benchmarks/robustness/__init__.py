"""Does the same input give the same answer, however it comes, and whatever happens on the way?"""
