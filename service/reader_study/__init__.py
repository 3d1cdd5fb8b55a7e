"""Reader studies: do explanations help people? Cases frozen with their answers, readers by code, two arms.

`create` freezes a folder of cases with the model's answers into a database, readers answer at `/study`, `export` writes
what `python -m training study analyse` reads. See `docs/reader-study.md`.
"""
