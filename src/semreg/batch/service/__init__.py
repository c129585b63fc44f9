"""A small HTTP service: registrations that are submitted, wait in a queue on disk and run in processes of their own.

``asked`` is what may be asked for, ``store`` the jobs on disk, ``process`` and ``child`` one registration, ``queue``
which run and when, ``upload`` how images come in, ``archive`` how they come as DICOM and how results go out, ``token``
who may ask, ``app`` the answers, ``server`` the whole. Only ``app``, ``upload`` and ``server`` know HTTP; they need the
extra ``serve``. Knows nothing of how a registration works: it runs ``semreg register``.
"""
