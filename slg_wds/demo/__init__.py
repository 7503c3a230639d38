"""`slg-wds demo`: label real photographs with a real teacher, show what it saw, and say how to train a student on it.

Enters: a folder to write to. Leaves: photographs and a label set in it. Everything is done through the package's public
API. The extra `demo` of the package brings the photographs and the teacher's weights.
"""
