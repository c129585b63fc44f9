"""Registration in other packages: ``monai.Registerd``, ``torchio.Register``, and a widget for napari, a module each.

Each module needs its package (``pip install semreg[monai]``, ``semreg[torchio]``, ``semreg[napari]``) and is imported
by who uses it.
"""
