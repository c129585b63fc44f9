"""Registration in the pipelines of other packages: ``monai.Registerd`` and ``torchio.Register``, a module each.

Each module needs its package (``pip install semreg[monai]``, ``semreg[torchio]``) and is imported by who uses it.
"""
