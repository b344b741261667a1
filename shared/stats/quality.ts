// Why: how good answers were once it is known what was right: accuracy, precision, recall and F1 from pairs of both.
// Trusts: its callers for texts that are compared as they stand. Must never: keep which request was which.

export interface ClassQuality {
  label: string;
  /** Requests whose label it is, and whose answer it was. */
  support: number;
  predicted: number;
  precision: number;
  recall: number;
  f1: number;
}

export interface Quality {
  count: number;
  accuracy: number;
  /** Mean over the classes that occur as label or as answer, each as important as the other. */
  macro: { precision: number; recall: number; f1: number };
  classes: ClassQuality[];
}

export interface Pairs {
  add(prediction: string, label: string): void;
  /** Null where there is no pair. By label. */
  quality(): Quality | null;
}

/** What has nothing to divide by counts as 0, as scikit-learn does it. */
const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);

export function createPairs(): Pairs {
  const classes = new Map<string, { support: number; predicted: number; right: number }>();
  let [count, right] = [0, 0];
  const of = (label: string) => {
    const present = classes.get(label) ?? { support: 0, predicted: 0, right: 0 };
    classes.set(label, present);
    return present;
  };
  return {
    add(prediction, label) {
      count += 1;
      of(label).support += 1;
      of(prediction).predicted += 1;
      if (prediction !== label) return;
      right += 1;
      of(label).right += 1;
    },
    quality() {
      if (count === 0) return null;
      const found = [...classes]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([label, one]): ClassQuality => {
          const { support, predicted } = one;
          const precision = ratio(one.right, predicted);
          const recall = ratio(one.right, support);
          const f1 = ratio(2 * one.right, support + predicted);
          return { label, support, predicted, precision, recall, f1 };
        });
      const mean = (pick: (one: ClassQuality) => number): number =>
        found.reduce((sum, one) => sum + pick(one), 0) / found.length;
      const macro = {
        precision: mean((one) => one.precision),
        recall: mean((one) => one.recall),
        f1: mean((one) => one.f1),
      };
      return { count, accuracy: right / count, macro, classes: found };
    },
  };
}
