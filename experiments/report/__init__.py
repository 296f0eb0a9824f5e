"""How results are shown: a terminal table, one self-contained page, and rows for other tools."""
