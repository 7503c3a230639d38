"""Teachers: where a model comes from, how it wants its pixels, and its probabilities for a batch of crops.

    spec.py           what was asked for: source, architecture, weights file, share in the ensemble
    preprocessing.py  mean, std, size, interpolation; the evaluation transform
    weights.py        weights files <-> modules, without running anything that a file contains
    inside.py         tensors and modules that a module keeps where torch does not look for them
    identity.py       the digests that say which model it is
    built.py          what a source returns: a module with its weights and its own preprocessing
    published.py      sources timm and torchvision
    private.py        source private: the user's own factories
    teacher.py        uint8 crops -> logits, on one device, in one precision
    forwards/         the ways to run a model: plainly, compiled, as a CUDA graph; the settings of a GPU meanwhile
    faults.py         errors of a device, told apart from those of a model
    trial.py          a test before the first label: does a crop alone decide its logits?
    load.py           a spec -> a teacher; options -> an ensemble
    ensemble.py       several teachers -> the mean of their softmax outputs
    about.py          where they run, in words, with advice
    towers/           teachers without heads: embeddings, and distributions over the prototypes of a bank
    evaluate.py       top-1, top-5 and loss on images with targets

Enters: options and uint8 crops. Leaves: float32 probabilities, and the identity and provenance of the teachers. May
import transforms/, labels/ (shares), banks/, concurrency, console and errors. Importing this costs nothing: torch,
torchvision and timm are imported by the functions that need them.
"""

from __future__ import annotations

from slg_wds.teachers.ensemble import Ensemble
from slg_wds.teachers.evaluate import Accuracy, evaluate
from slg_wds.teachers.identity import digest
from slg_wds.teachers.load import device_of, load_ensemble, load_teacher
from slg_wds.teachers.preprocessing import Preprocessing, eval_transform
from slg_wds.teachers.spec import SOURCES, TeacherSpec, parse_teachers
from slg_wds.teachers.teacher import PRECISIONS, Teacher

__all__ = [
    "PRECISIONS",
    "SOURCES",
    "Accuracy",
    "Ensemble",
    "Preprocessing",
    "Teacher",
    "TeacherSpec",
    "device_of",
    "digest",
    "eval_transform",
    "evaluate",
    "load_ensemble",
    "load_teacher",
    "parse_teachers",
]
