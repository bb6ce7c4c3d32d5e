"""How params.yaml is read: closed, typed, frozen classes, whose faults are one line that names section and key.

The class of a section is in the package of its stage, in `params.py`; stages/params.py combines them.
"""
