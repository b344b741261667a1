"""Trains scikit-learn's MLP on what test/learn/export-training.ts wrote: the same features, split, layers and settings.

Usage: python3 scripts/sklearn-mlp.py FOLDER; one JSON line on stdout. Debian: apt-get install python3-sklearn.
"""
import json
import sys
import time
import warnings

import numpy as np
import sklearn
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

warnings.filterwarnings("ignore")  # it says after max_iter epochs that it has not converged
folder = sys.argv[1]
about = json.load(open(folder + "/about.json"))
recipe, columns = about["recipe"], about["columns"]


def read(name):
    return np.fromfile(f"{folder}/{name}.f64", dtype="<f8")


x, test = read("x-train").reshape(-1, columns), read("x-test").reshape(-1, columns)
y, truth, base = read("y-train"), read("truth"), read("base")
settings = dict(
    hidden_layer_sizes=tuple(recipe["hidden"]),
    activation={"sigmoid": "logistic"}.get(recipe["activation"], recipe["activation"]),
    solver=recipe["optimizer"],
    alpha=recipe["decay"],
    batch_size=min(recipe["batch"], len(x)),
    learning_rate_init=recipe["learningRate"],
    max_iter=recipe["epochs"],
    n_iter_no_change=recipe["epochs"],
    tol=0,
)
scores = []
seconds = []
for seed in range(5):
    begun = time.perf_counter()
    if recipe["task"] == "classification":
        model = MLPClassifier(random_state=seed, **settings).fit(x, y.astype(int))
        scores.append({"auc": roc_auc_score(truth, model.predict_proba(test)[:, 1]), "accuracy": accuracy_score(truth, model.predict(test))})
    elif recipe["task"] == "anomaly":
        model = MLPRegressor(random_state=seed, **settings).fit(x, x)
        scores.append({"auc": roc_auc_score(truth, ((model.predict(test) - test) ** 2).mean(axis=1))})
    else:
        model = MLPRegressor(random_state=seed, **settings).fit(x, y)
        scores.append({"r2": r2_score(truth, base + about["scale"] * model.predict(test))})
    seconds.append(time.perf_counter() - begun)
median = {key: round(float(np.median([one[key] for one in scores])), 4) for key in scores[0]}
print(json.dumps({"name": about["name"], **median, "seeds": 5, "seconds": round(float(np.median(seconds)), 2), "version": sklearn.__version__}))
