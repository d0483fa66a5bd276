"""How well clusters of an embedding agree with labels, against embeddings that anyone can make."""
