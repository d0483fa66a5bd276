"""The tables of the INST-Align paper, as far as their data can be had, beside what this package reaches."""
