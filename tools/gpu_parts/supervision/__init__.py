"""How the parts run, and what becomes of what they find.

run.py       starts each part, ends it when its time is over, and writes the report
child.py     the process of one part
findings.py  what a part found, kept on disk while it goes on
bars.py      what has to be reached, and what was predicted
"""
