"""Tables of what the running service does: speed, load, faults, memory."""

from __future__ import annotations

from benchmarks.results_of import result_of, rounds, where
from training.markdown import table

_RATES = ("here, images/s", "there, images/s")


def beside_before() -> str:
    """Images a second beside another checkout, in one run."""
    result = result_of("beside_before")
    rows = [
        [row["images"], f"`{row['route']}`", *(f"{row[name]:.1f}" for name in _RATES), f"{row['median ratio']:.2f}"]
        for row in result["rows"]
    ]
    return table(["images", "route", "images/s", "before", "median ratio"], rows) + f"\n\n{where(result)}."


def footprint() -> str:
    """Start-up and memory of the service."""
    result = result_of("service_footprint")
    rows = [[row["what"], f"{row['median']:.1f}"] for row in result["rows"]]
    return table(["", "median"], rows) + f"\n\n{where(result)}."


def container() -> str:
    """Size, start, memory and stop of the container."""
    result = result_of("container")
    rows = [[row["what"], f"{row['median']:.1f}", f"{row['largest']:.1f}"] for row in result["rows"]]
    text = f"{result['options']['starts']} starts, {where(result)}, a machine shared with other work."
    return table(["", "median", "largest"], rows) + f"\n\n{text}"


def decoding() -> str:
    """Pictures beside those of dcmtk: how many files of each verdict, and those that are not simply the same."""
    result = result_of("decoding")
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(result["verdicts"].items()))
    plain = [row["correlation"] for row in result["rows"] if row["verdict"] == "same"]
    rows = [
        [row["file"], row["verdict"], row["reason"]]
        for row in result["rows"]
        if row["verdict"] not in ("same", "no image")
    ]
    text = f"{len(result['rows'])} files: {said}; least correlation of those that are the same {min(plain):.5f}"
    return table(["file", "", "reason"], rows) + f"\n\n{text}. dcmtk {result['versions']['dcmtk']}, {where(result)}."


def studies(name: str = "study_throughput") -> str:
    """The path of a series against the forward pass."""
    result, rate = result_of(name), "of the forward pass's rate"
    rows = [
        [r["what"], f"{r['ms a slice']:.1f}", f"{r['slices a second']:.1f}", f"{r[rate]:.2f}"] for r in result["rows"]
    ]
    head = ["", "ms a slice", "slices a second", rate]
    text = f"{result['options']['model']}, a series of {result['slices']} slices, {result['objects']} objects made; "
    return table(head, rows) + f"\n\n{text}{where(result)}."


def pacs() -> str:
    """The same through a real Orthanc."""
    result, rate, cpu = result_of("pacs_throughput"), "of the forward pass's rate", "CPU ms a slice"
    rows = [
        [r["what"], f"{r['ms a slice']:.1f}", f"{r['slices a second']:.1f}", f"{r[rate]:.2f}", r[cpu]]
        for r in result["rows"]
    ]
    head = ["", "ms a slice", "slices a second", rate, cpu]
    text = f"{result['options']['series']} series of {result['slices']} slices, {result['objects']} objects for each; "
    return table(head, rows) + f"\n\n{text}{where(result)}."


def http() -> str:
    """HTTP against the engine, and where one image's time goes."""
    result = result_of("http_efficiency")
    names = (
        "images a second",
        "corrected",
        "of the best",
        "p50, ms",
        "of batch 1",
        "CPU ms an image",
        "beyond",
        "outside",
    )
    rows = [[r["what"], *("" if r[name] is None else f"{r[name]:.2f}" for name in names)] for r in result["rows"]]
    stages = sorted(result["stages"].items(), key=lambda item: -item[1])
    split = ", ".join(f"{stage} {value:.1f}" for stage, value in stages)
    parts = ", ".join(f"{part} {value:.2f}" for part, value in result["parts"].items())
    text = f"Wall time of one image alone by stage, ms: {split}.\n\n"
    text += f"CPU time of the parts of a request of one image, each alone, ms: {parts}.\n\n{where(result)}."
    return table(["", *names], rows) + f"\n\n{text}"


def interference(name: str = "interference") -> str:
    """What single images feel of others."""
    result = result_of(name)
    names = list(result["rows"][0])
    rows = [
        [str(row["beside"]), str(row["requests"]), *(f"{row[name]:.2f}" for name in names[2:])]
        for row in result["rows"]
    ]
    used = result["options"]
    text = f"{used['rate']:g} single images a second, {rounds(result)} of {used['seconds']:g} s; {where(result)}."
    return table(names, rows) + f"\n\n{text}"


def overload(name: str = "overload") -> str:
    """Goodput at multiples of capacity."""
    result = result_of(name)
    names = list(result["rows"][0])

    def cell(value: float | int | None) -> str:
        return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    rows = [[f"{row[names[0]]:g}", *(cell(row[name]) for name in names[1:])] for row in result["rows"]]
    used = result["options"]
    text = f"Capacity {result['capacity']:.1f} images a second, deadline {used['deadline_ms']} ms; "
    text += f"{used['cores']} core of its own for the service; " if used["cores"] else ""
    return table(names, rows) + f"\n\n{text}{used['seconds']:g} s each; {where(result)}."


def observation() -> str:
    """What metrics, logs and spans cost."""
    result = result_of("observation_cost")
    rows = [[r["what"], f"{r['us']:.0f}"] for r in result["rows"]]
    return table(["", "CPU time, microseconds"], rows) + f"\n\n{where(result)}; a machine shared with other work."


def faults() -> str:
    """What became of every request under each fault."""
    result = result_of("faults")
    rows: list[list[str]] = []
    for one in result["faults"].values():
        outcomes = ", ".join(f"{count} {kind}" for kind, count in one["outcomes"].items())
        seen = ", ".join(f"{name} {value:g}" for name, value in one["figures"].items())
        held = f"{sum(one['claims'].values())} of {len(one['claims'])}"
        rows.append(
            [one["fault"], str(one["requests"]), outcomes, str(one["wrong"]), f"{one['recovery_s']:g}", held, seen]
        )
    head = ["fault", "requests", "ended", "wrong answers", "recovery, s", "claims that held", "besides"]
    return table(head, rows) + f"\n\n{where(result)}; the machine was shared."


def soak(name: str = "soak") -> str:
    """What grew over the second half of a soak."""
    result = result_of(name)
    rows = [
        [
            what.replace("_mib", ", MiB"),
            f"{result['samples'][what][-1]:g}",
            f"{one['growth']:.2f} ({one['low']:.2f} to {one['high']:.2f})",
            f"{one['bound']:g}",
        ]
        for what, one in result["verdicts"].items()
    ]
    wrong = sum(result["unexpected"].values())
    text = f"{result['options']['minutes']:g} minutes, {result['requests']} requests, {wrong} not answered as is right"
    head = ["", "at the end", "growth over the second half (95 % interval)", "at most"]
    return table(head, rows) + f"\n\n{text}; {where(result)}; the machine was shared."


def load() -> str:
    """A run of `make load`: what each operation took, and its verdict."""
    result = result_of("load")
    names = ("requests", "shed", "wrong", "p50_ms", "p95_ms", "p99_ms")
    rows = [
        [row["operation"], *("" if row[name] is None else f"{row[name]:.0f}" for name in names)]
        for row in result["operations"]
    ]
    met, used = sum(row["met"] for row in result["verdict"]), result["options"]
    (rate,) = (row["measured"] for row in result["verdict"] if row["objective"] == "throughput")
    text = (
        f"{used['users']} users, {used['seconds']:g} s: {rate:.1f} images a second, {met} of {len(result['verdict'])} "
    )
    note = f"; {result['machine']['note']}" if result["machine"]["note"] else ""
    return table(["operation", *(name.replace("_ms", ", ms") for name in names)], rows) + (
        f"\n\n{text}objectives met. {where(result)}{note}."
    )


def capacity() -> str:
    """The levels of a search for capacity, and what it found."""
    result = result_of("capacity")
    names = ("requests", "p50_ms", "p95_ms", "p99_ms", "late_ms")
    rows = [
        [f"{one['rate']:.2f}", one["decision"], *(f"{one[name]:.0f}" for name in names)] for one in result["levels"]
    ]
    found, goal = result["found"], result["objective"]
    limits = ", ".join(f"{name[:3]} {goal[name]:g} ms" for name in ("p50_ms", "p95_ms", "p99_ms") if goal[name])
    text = f"{result['operation']}, {result['options']['images']} image a request, objective {limits}: "
    text += "none shown" if found["rate"] is None else f"**{found['images_per_s']:.1f} explanations a second**"
    if found["cost_per_1000"] is not None:
        text += f", {found['cost_per_1000']:.4f} for 1,000 at {result['options']['price']:g} an hour"
    note = f"; {result['machine']['note']}" if result["machine"]["note"] else ""
    head = ["requests a second", "objective", *(name.replace("_ms", ", ms") for name in names)]
    return table(head, rows) + f"\n\n{text}. {where(result)}{note}."


def backfill(name: str = "backfill") -> str:
    """Whole archives against ONNX Runtime alone."""
    result = result_of(name)
    names = [name for name in result["rows"][0] if name != "what"]
    rows = [
        [r["what"], *(f"{r[name]:.{2 if 'ratio' in name or 'of ONNX' in name else 1}f}" for name in names)]
        for r in result["rows"]
    ]
    text = f"{result['options']['images']} images, images a second; {where(result)}, a machine shared with other work."
    return table(["", *names], rows) + f"\n\n{text}"


def scaling() -> str:
    """Throughput and memory by workers and cores."""
    result = result_of("scaling")
    rows = [
        [
            str(cell) if isinstance(cell, int) else f"{cell:.{0 if name == 'MiB' else 1 if 'images' in name else 2}f}"
            for name, cell in row.items()
        ]
        for row in result["rows"]
    ]
    return table(list(result["rows"][0]), rows) + f"\n\n{rounds(result)}, {where(result)}."


def capacity_check() -> str:
    """The model of a site's capacity beside what was measured."""
    result = result_of("capacity_model")
    rows = [
        [f"{cell:.{1 if name.startswith('images') else 0}f}" for name, cell in row.items()] for row in result["check"]
    ]
    return table(list(result["check"][0]), rows)


def capacity_model() -> str:
    """Studies an hour, simulated."""
    result = result_of("capacity_model")
    rows = [
        [
            row["what"],
            str(row["workers"]),
            f"{row['busy']:.2f}",
            *("" if row[name] is None else f"{row[name]:.1f}" for name in ("study p50, s", "study p95, s")),
            *(f"{cell:,.0f}" for name, cell in row.items() if name.startswith("studies an hour")),
            row["limited by"],
        ]
        for row in result["rows"]
    ]
    text = f"{result['options']['studies']:g} studies an hour; simulated from times measured on {where(result)}."
    return table(list(result["rows"][0]), rows) + f"\n\n{text}"
