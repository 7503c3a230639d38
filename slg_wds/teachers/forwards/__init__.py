"""How uint8 crops go through a model: plainly, compiled, with its weights cast beforehand, or as a CUDA graph.

    functions.py  the plain forward and the compiled one
    casting.py    low-precision copies of the weights, made once
    graph.py      a forward as a CUDA graph
    backends.py   how a GPU is configured meanwhile
    scenes.py     synthetic photographs, on which two ways to run a model are compared

Enters: a module and uint8 crops [N, 3, S, S]. Leaves: logits. A faster way is used only if it gives the same bits.
"""
