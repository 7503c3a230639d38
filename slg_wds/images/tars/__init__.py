"""Images inside WebDataset tars: which tars there are, their members, the samples and classes of these.

Enters: a URL or brace pattern. Leaves: a plan of samples, and their bytes. Imports stores and the format of plans.
"""
