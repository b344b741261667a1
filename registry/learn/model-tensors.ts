// Why: examples and answers as the tensors of the model's ONNX file, for golden cases and for running it. Pure.
// Trusts: examples that lie in their columns. Must never: name or shape a tensor otherwise than conversion.ts does.

import type { Tensor } from '../../shared/wire/tensors.ts';
import type { Answers, Examples, Head } from './model.ts';

/** `values` FP32 `[n, F]` or `[n, window, F]`, and `texts` BYTES `[n, C]`; each only where there is such a column. */
export function inputTensors({ numeric, categories, at, window }: Examples): Tensor[] {
  const tensors: Tensor[] = [];
  if (numeric.length > 0) {
    const data = new Float32Array(at.length * window * numeric.length);
    let place = 0;
    for (const last of at)
      for (let row = last - window + 1; row <= last; row += 1)
        for (const { values } of numeric) data[place++] = values[row] as number;
    const shape = window === 1 ? [at.length, numeric.length] : [at.length, window, numeric.length];
    tensors.push({ name: 'values', datatype: 'FP32', shape, data });
  }
  if (categories.length > 0) {
    const data: string[] = [];
    for (const row of at)
      for (const { categories: texts, codes } of categories) data.push(texts[codes[row] as number] ?? '');
    tensors.push({ name: 'texts', datatype: 'BYTES', shape: [at.length, categories.length], data });
  }
  return tensors;
}

/** As the graph gives them. */
export function outputTensors(answers: Answers, head: Head): Tensor[] {
  if (answers.kind === 'value') {
    const { values } = answers;
    return [
      { name: 'prediction', datatype: 'FP32', shape: [values.length, 1], data: Float32Array.from(values) },
    ];
  }
  if (answers.kind === 'anomaly') {
    const { scores } = answers;
    const shape = [scores.length, 1];
    return [
      { name: 'score', datatype: 'FP32', shape, data: Float32Array.from(scores) },
      {
        name: 'anomaly',
        datatype: 'BOOL',
        shape,
        data: Uint8Array.from(scores, (score) => (score > 1 ? 1 : 0)),
      },
    ];
  }
  const { probabilities, best } = answers;
  const shape = [probabilities.rows, probabilities.columns];
  const labels: readonly (number | string)[] = head.kind === 'classes' ? head.labels : [];
  const isText = typeof labels[0] === 'string';
  const label: Tensor = isText
    ? {
        name: 'label',
        datatype: 'BYTES',
        shape: [best.length],
        data: [...best].map((place) => String(labels[place] ?? '')),
      }
    : {
        name: 'label',
        datatype: 'INT64',
        shape: [best.length],
        data: BigInt64Array.from(best, (place) => BigInt(labels[place] ?? 0)),
      };
  return [
    label,
    { name: 'probabilities', datatype: 'FP32', shape, data: Float32Array.from(probabilities.values) },
  ];
}
