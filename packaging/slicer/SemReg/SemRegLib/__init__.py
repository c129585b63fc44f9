"""What the module does beside its window. ``logic``, ``scene`` and ``forms`` know Slicer; the
rest needs nothing but Python 3.9.

semreg itself runs in a process of its own, in whichever Python it is installed; this package never imports it.
"""
