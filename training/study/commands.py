"""`python -m training study`: analyse, simulate, plan."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.study.expected import Recovered
    from training.study.readings import Readings
    from training.study.simulate import Parameters

# Libraries are imported inside the commands, so that --help answers at once.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands."""
    commands = parser.add_subparsers(dest="study_command", required=True)
    analyse = commands.add_parser("analyse", help="analyse an exported reader study; write report, numbers and tables")
    analyse.add_argument("folder", type=Path, metavar="FOLDER", help="with study.json, cases.csv and readings.csv")
    analyse.add_argument("out", type=Path, metavar="OUT", help="folder for the report")
    analyse.add_argument("--leave-out", action="append", default=[], metavar="CODE", help="a reader who gave up")
    _add_resamples(analyse, 1000)
    analyse.set_defaults(run=_analyse)
    simulate = commands.add_parser("simulate", help="make a study from known parameters")
    simulate.add_argument("out", type=Path, metavar="OUT", help="folder for its files")
    _add_parameters(simulate)
    simulate.set_defaults(run=_simulate)
    coverage = commands.add_parser("coverage", help="simulate many studies; how often do the intervals hold the truth?")
    coverage.add_argument("out", type=Path, metavar="OUT", help="the JSON file to write")
    coverage.add_argument("--studies", type=_at_least(1), default=1000, help="default: %(default)s")
    _add_parameters(coverage)
    coverage.set_defaults(run=_coverage)
    _add_power(commands.add_parser("power", help="readers and cases that a crossover needs"))
    _add_models(commands.add_parser("models", help="compare two models, or two methods, on the same cases"))


def _add_resamples(parser: argparse.ArgumentParser, count: int) -> None:
    text = "resamples (default: %(default)s)"
    parser.add_argument("--bootstrap", type=_at_least(1), default=count, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (default: %(default)s)")


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--readers", type=_at_least(2), default=6, help="default: %(default)s")
    parser.add_argument("--cases", type=_at_least(4), default=60, help="default: %(default)s")
    parser.add_argument("--design", choices=("crossover", "parallel"), default="crossover", help="default: %(default)s")
    parser.add_argument("--parameters", type=Path, metavar="FILE", help="JSON with others than the built-in ones")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def _add_power(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--readers", type=_numbers, default=(4, 6, 8, 12), metavar="N,N", help="default: 4,6,8,12")
    parser.add_argument("--cases", type=_numbers, default=(40, 60, 100, 150, 200), metavar="N,N")
    parser.add_argument("--without", type=_share, default=0.75, help="expected share (default: %(default)s)")
    parser.add_argument("--with", dest="with_", type=_share, default=0.82, help="the same with (default: %(default)s)")
    parser.add_argument("--correlation", type=float, default=0.4, help="of the two answers (default: %(default)s)")
    parser.add_argument("--reader-sd", type=float, default=0.03, help="of the readers' gains (default: %(default)s)")
    parser.add_argument("--case-share", type=float, default=0.15, help="common to all readers (default: %(default)s)")
    parser.add_argument(
        "--pilot", type=Path, metavar="FOLDER", help="take change and spread from this study's accuracy"
    )
    parser.add_argument("--goal", type=_share, default=0.8, help="power to reach (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON too")
    parser.set_defaults(run=_power)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A", help="folder of `evaluate`, or a CSV file with id and score")
    parser.add_argument("second", type=Path, metavar="B", help="the same for the other")
    parser.add_argument("--healthy", action="append", default=[], metavar="CLASS", help="no disease; for the AUROC")
    parser.add_argument("--score", default="score", metavar="COLUMN", help="of a CSV file (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON too")
    _add_resamples(parser, 2000)
    parser.set_defaults(run=_models)


def _analyse(arguments: argparse.Namespace) -> int:
    from pydantic import TypeAdapter
    from rich.console import Console

    from training.files import write_atomically
    from training.study.analysis import analyse
    from training.study.content import report
    from training.study.document import Picture
    from training.study.expected import Recovered
    from training.study.pdf_file import pdf_file
    from training.study.readings import read_study
    from training.study.tables import readings_csv, results_csv
    from training.study.web_page import web_page

    console = Console()
    with console.status("reading the files") as status:
        readings = read_study(arguments.folder, arguments.leave_out)
        status.update("analysing")
        analysis = analyse(readings, resamples=arguments.bootstrap, seed=arguments.seed)
        recovered = _recovered(readings, arguments.folder)
        document = report(analysis, recovered)
        status.update("drawing and writing the report")
        files = {
            "report.html": web_page(document),
            "report.pdf": pdf_file(document),
            "analysis.json": (analysis.model_dump_json(indent=1) + "\n").encode(),
            "readings.csv": readings_csv(readings),
            "results.csv": results_csv(analysis),
        }
        files |= {f"{block.name}.png": block.render("png") for block in document.blocks if isinstance(block, Picture)}
        if recovered:
            files["recovered.json"] = TypeAdapter(list[Recovered]).dump_json(recovered, indent=1) + b"\n"
        for name, content in files.items():
            write_atomically(arguments.out / name, content)
    console.print(f"{analysis.readers} readers, {analysis.cases} cases, {analysis.left_out} left out")
    for name, found in analysis.pooled.items():
        console.print(f"{name}: {found.without.value:.3f} without, {found.with_.value:.3f} with")
    console.print(f"written to {arguments.out}: {', '.join(files)}")
    return 0


def _recovered(readings: Readings, folder: Path) -> list[Recovered]:
    """Where the study is a simulated one, what was expected and what was found."""
    from training.study.analysis import pooled_results, rating_means
    from training.study.expected import recover
    from training.study.simulate import PARAMETERS, Parameters

    if not (folder / PARAMETERS).exists():
        return []
    parameters = Parameters.model_validate_json((folder / PARAMETERS).read_bytes())
    return recover(parameters, pooled_results(readings), rating_means(readings))


def _simulate(arguments: argparse.Namespace) -> int:
    from training.study.simulate import save_study, simulate

    parameters = _parameters(arguments)
    save_study(arguments.out, *simulate(parameters, arguments.seed), parameters)
    return 0


def _coverage(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from tqdm import tqdm

    from training.files import write_atomically
    from training.study.coverage import coverage

    studies = tqdm(range(arguments.seed, arguments.seed + arguments.studies), unit="study")
    found = coverage(_parameters(arguments), studies)
    write_atomically(arguments.out, (found.model_dump_json(indent=1) + "\n").encode())
    for figure, share in found.inside.items():
        Console().print(f"{figure}: inside in {share:.1%} of {found.studies} studies")
    return 0


def _parameters(arguments: argparse.Namespace) -> Parameters:
    from training.study.simulate import Parameters

    given = Parameters()
    if arguments.parameters is not None:
        given = Parameters.model_validate_json(arguments.parameters.read_bytes())
    changed = {"readers": arguments.readers, "cases": arguments.cases, "design": arguments.design}
    return Parameters.model_validate({**given.model_dump(), **changed})


def _power(arguments: argparse.Namespace) -> int:
    from training.files import write_atomically
    from training.study.planning import plan, plan_of_pilot, print_plan
    from training.study.readings import read_study

    grid = {"readers": arguments.readers, "cases": arguments.cases, "goal": arguments.goal}
    if arguments.pilot is None:
        names = ("without", "with_", "correlation", "reader_sd", "case_share")
        expected = {name: getattr(arguments, name) for name in names}
        found = plan(**expected, **grid)
    else:
        found = plan_of_pilot(read_study(arguments.pilot), **grid)
    print_plan(found)
    if arguments.json is not None:
        write_atomically(arguments.json, (found.model_dump_json(indent=1) + "\n").encode())
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from training.files import write_atomically
    from training.paired import compare, print_comparison, read_predictions

    first, second = (read_predictions(path, arguments.score) for path in (arguments.first, arguments.second))
    healthy = tuple(arguments.healthy)
    found = compare(first, second, healthy=healthy, resamples=arguments.bootstrap, seed=arguments.seed)
    print_comparison(found)
    if arguments.json is not None:
        write_atomically(arguments.json, (found.model_dump_json(indent=1) + "\n").encode())
    return 0


def _at_least(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return count


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_at_least(3)(part) for part in text.split(","))
