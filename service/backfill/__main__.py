"""`python -m service.backfill`: explain a whole archive into Parquet files, on Ray."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from service.commands import run_command

_DESCRIPTION = """\
Explain every image of an archive. Research use only: not a medical device. A saliency map is evidence for a prediction,
not a lesion outline. The results are written for whoever runs this, and hold what tells of patients (--names).

SOURCE is one of
  FOLDER                              every file below it; links to folders are not followed
  s3://BUCKET/PREFIX, gs://, hdfs://  an object store, as Arrow takes it
  @FILE                               a text file with an address a line
  dicomweb:NAME?Modality=MR&...       the series that QIDO-RS finds in an archive of RADIOLUCENT_ARCHIVES

The same command again goes on where an earlier one stopped, however it was stopped."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run.

    Returns:
        0 when every entry has its row, also where the row says that it failed; 2 when something is missing or wrong.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    absent = [name for name in ("ray", "pyarrow") if find_spec(name) is None]
    if absent:
        parser.error(f"{' and '.join(absent)} not installed: pip install 'radiolucent[backfill]'")
    from service.backfill.command import backfill

    return run_command(parser.prog, lambda: backfill(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.backfill",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Models, device, precision, archives and the site's key: the service's settings (RADIOLUCENT_...).",
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of listing and results, for this user alone")
    parser.add_argument("--model", required=True, metavar="ID")
    parser.add_argument("--method", default="", help="of the explanation (default: the model's)")
    parser.add_argument("--target", default="predicted", help="class that is explained (default: %(default)s)")
    parser.add_argument("--budget", type=int, help="images through the model for one explanation")
    parser.add_argument("--seed", type=int, default=0, help="of methods that sample (default: %(default)s)")
    parser.add_argument("--match", default="*", metavar="GLOB", help="only files of such names")
    parser.add_argument("--saliency", choices=("float16", "float32"), default="float32", help="default: %(default)s")
    parser.add_argument(
        "--names",
        choices=("kept", "hashed"),
        default="kept",
        help="addresses and UIDs in the results: as they are, or hashed with the site's key (default: %(default)s)",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="answer whole series, those of a query or the folders of a folder, and write DICOM objects to OUT/dicom",
    )
    parser.add_argument("--retry", action="store_true", help="once more, too, what could not be fetched")
    parser.add_argument("--shard", type=int, default=512, metavar="IMAGES", help="done together (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="IMAGES", help="one forward pass (default: %(default)s)"
    )
    parser.add_argument("--engines", type=int, default=0, help="default: one for each GPU, or each core")
    parser.add_argument(
        "--ahead-mib", type=int, default=256, help="memory for what is read ahead (default: %(default)s)"
    )
    parser.add_argument("--address", default="", help="of a running Ray; default: on this machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
