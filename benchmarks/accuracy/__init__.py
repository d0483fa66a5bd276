"""How far aligned cells land from where they belong: pairs, methods, measures, one table."""
