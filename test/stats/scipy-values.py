# Why: what scipy says of the same values, kept in scipy-values.json for test/stats/drift.test.ts.
# Trusts: Debian's python3-scipy. Must never: be needed to run the tests.
# Usage: python3 test/stats/scipy-values.py DATA-FOLDER > test/stats/scipy-values.json
import csv
import json
import sys

import numpy
import scipy
import scipy.stats.contingency
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

data = sys.argv[1]


def column(path, name, delimiter=","):
    with open(f"{data}/datasets/{path}", encoding="utf-8-sig") as file:
        return [row[name] for row in csv.DictReader(file, delimiter=delimiter)]


def numeric(name, source, reference, live, low, high, bins):
    edges = numpy.linspace(low, high, bins + 1)
    counts = [numpy.histogram(side, [-numpy.inf, *edges, numpy.inf])[0] for side in (reference, live)]
    return {
        "name": name,
        **source,
        "edges": [float(edge) for edge in edges],
        "ks": float(ks_2samp(reference, live).statistic),
        "wasserstein": float(wasserstein_distance(reference, live)),
        "js": float(jensenshannon(counts[0], counts[1], base=2) ** 2),
    }


def categorical(name, source, table):
    found = chi2_contingency(table, correction=False)
    return {
        "name": name,
        **source,
        "chiSquare": float(found[0]),
        "degreesOfFreedom": int(found[2]),
        "cramersV": float(scipy.stats.contingency.association(numpy.array(table), method="cramer")),
        "js": float(jensenshannon(table[0], table[1], base=2) ** 2),
    }


random = numpy.random.default_rng(8)
made = []
for name, reference, live in [
    ("normal, moved by half a deviation", random.normal(0, 1, 400), random.normal(0.5, 1, 300)),
    ("one distribution twice", random.normal(0, 1, 400), random.normal(0, 1, 300)),
    ("wider and askew", random.normal(0, 1, 300), random.gamma(2, 1, 400)),
]:
    sides = {"reference": [round(float(v), 3) for v in reference], "live": [round(float(v), 3) for v in live]}
    low, high = min(map(min, sides.values())), max(map(max, sides.values()))
    made.append(numeric(name, sides, sides["reference"], sides["live"], low, high + 0.001, 50))
whole = {"reference": [int(v) for v in random.poisson(4, 300)], "live": [int(v) for v in random.poisson(5, 300)]}
made.append(numeric("whole numbers, an edge at each", whole, whole["reference"], whole["live"], 0, 20, 20))

real = []
for path, name, delimiter, live_path, size, low, high, bins in [
    ("industrial/nab_machine_temperature_system_failure.csv", "value", ",", None, 4000, 0, 120, 120),
    ("traffic/nab_speed_6005.csv", "value", ",", None, 1000, 0, 120, 120),
    ("traffic/nab_occupancy_6005.csv", "value", ",", None, 1000, 0, 60, 240),
    ("industrial/skab/anomaly-free.csv", "Temperature", ";", "industrial/skab/valve1_0.csv", 1100, 60, 110, 200),
    ("industrial/skab/anomaly-free.csv", "Voltage", ";", "industrial/skab/valve1_0.csv", 1100, 150, 300, 300),
]:
    reference = [float(v) for v in column(path, name, delimiter)]
    live = reference if live_path is None else [float(v) for v in column(live_path, name, delimiter)]
    source = {"path": path, "livePath": live_path or path, "column": name, "delimiter": delimiter, "size": size}
    real.append(numeric(f"{path} {name}", source, reference[:size], live[-size:], low, high, bins))

tables = [
    categorical("small", {"table": t}, t) for t in ([[10, 20, 30, 40], [15, 15, 40, 30]],)
] + [
    categorical("many rows, small effect", {"table": t}, t) for t in ([[50000, 50000], [50600, 49400]],)
] + [
    categorical("strong effect", {"table": t}, t) for t in ([[90, 9, 1], [30, 60, 10]],)
]
kinds = column("industrial/ai4i2020_9col.csv", "Type")
values = ["L", "M", "H"]
worn = [float(v) >= 100 for v in column("industrial/ai4i2020_9col.csv", "Tool wear [min]")]
failed = [v == "1" for v in column("industrial/ai4i2020_9col.csv", "Machine failure")]
for name, flags in [("Tool wear [min]", worn), ("Machine failure", failed)]:
    table = [[sum(1 for k, f in zip(kinds, flags) if k == v and f == side) for v in values] for side in (False, True)]
    tables.append(categorical(f"ai4i2020 Type by {name}", {"by": name, "values": values}, table))

json.dump(
    {
        "command": "python3 test/stats/scipy-values.py DATA-FOLDER > test/stats/scipy-values.json",
        "scipy": scipy.__version__,
        "made": made,
        "real": real,
        "tables": tables,
    },
    sys.stdout,
    separators=(",", ":"),
)
print()
