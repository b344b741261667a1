// Why: a trained model as one ONNX file that takes raw inputs: cleaning, imputation, features and normalisation stand
// inside, so that no application can prepare differently than the training did.
// Pure. Trusts: a model whose parts fit each other. Must never: write a file that answers otherwise than `answer`.

import { invariant } from '../../shared/kernel/errors.ts';
import { type GraphValue, writeModel } from '../../shared/onnx/writer.ts';
import { GraphBuilder } from './graph-builder.ts';
import type { Head, Network, Preparation, TrainedModel } from './model.ts';
import { addPreparation, inputNames, type PreparedGraph } from './preparation-graph.ts';

export interface AboutModel {
  /** Of the graph. */
  name: string;
  /** In words: what it predicts, from what it was trained. */
  documentation: string;
  /** Added to what the file says of itself (`task`, `columns`, `window`, `labels`); a key given here counts. */
  metadata: Record<string, string>;
}

export const outputNames = {
  label: 'label',
  probabilities: 'probabilities',
  prediction: 'prediction',
  score: 'score',
  anomaly: 'anomaly',
} as const;

/**
 * The ONNX file (opset 17; of ai.onnx.ml 3 where there are texts). The number of examples n is free.
 * Inputs: `values` FP32 [n, F], with a window [n, W, F] oldest row first, a missing value NaN; `texts` BYTES [n, C], a
 * missing text empty. What there is no column of is left out.
 * Outputs: classes `label` [n] (INT64, or BYTES where labels are texts) and `probabilities` FP32 [n, K]; a value
 * `prediction` FP32 [n, 1]; anomalies `score` FP32 [n, 1] and `anomaly` BOOL [n, 1], which is score > 1.
 */
export function writeTrained(model: TrainedModel, about: AboutModel): Uint8Array {
  const { preparation, network, head } = model;
  checkFit(model);
  const graph = new GraphBuilder();
  const prepared = addPreparation(graph, preparation, head.kind === 'value' && head.carries !== null);
  const output = addNetwork(graph, network, prepared.prepared);
  const outputs = addHead(graph, head, output, prepared);
  return writeModel({
    name: about.name,
    inputs: graphInputs(preparation),
    outputs,
    nodes: graph.nodes,
    initializers: graph.initializers,
    metadata: { ...ownMetadata(model), ...about.metadata },
    documentation: about.documentation,
    graphDocumentation: describeGraph(preparation),
  });
}

function checkFit({ preparation, network, head }: TrainedModel): void {
  const { names, numeric } = preparation;
  const [first] = network.layers;
  const last = network.layers.at(-1);
  invariant(first !== undefined && last !== undefined, 'a network without layers');
  invariant(first.inputs === names.length, `${names.length} columns for ${first.inputs} inputs`);
  const expected = head.kind === 'classes' ? head.labels.length : head.kind === 'value' ? 1 : first.inputs;
  invariant(last.outputs === expected, `${last.outputs} outputs for a head of ${expected}`);
  invariant((network.output === 'softmax') === (head.kind === 'classes'), 'softmax is for classes');
  if (head.kind === 'value' && head.carries !== null)
    invariant(numeric[head.carries] !== undefined, `no numeric input ${head.carries} that could be carried`);
  if (head.kind === 'anomaly') invariant(Math.fround(head.threshold) > 0, 'a threshold that is not above 0');
}

function graphInputs({ numeric, categories, window }: Preparation): GraphValue[] {
  const inputs: GraphValue[] = [];
  const listed = (columns: readonly { name: string }[]): string =>
    columns.map(({ name }, at) => `${at} ${name}`).join(', ');
  if (numeric.length > 0)
    inputs.push({
      name: inputNames.values,
      datatype: 'FP32',
      shape: window === null ? ['n', numeric.length] : ['n', window, numeric.length],
      documentation: `${window === null ? '' : `${window} rows, oldest first. `}NaN where missing. Columns: ${listed(numeric)}`,
    });
  if (categories.length > 0)
    inputs.push({
      name: inputNames.texts,
      datatype: 'BYTES',
      shape: ['n', categories.length],
      documentation: `Empty where missing. Columns: ${listed(categories)}`,
    });
  return inputs;
}

function describeGraph({ names, normalise }: Preparation): string {
  return (
    `Takes raw values: cleaning, filling of missing values, features and ${normalise} normalisation stand in the ` +
    `graph. Columns of the network's input, scale_features: ${names.map((name, at) => `${at} ${name}`).join(', ')}`
  );
}

/** What the model says of itself. Values that are no plain text are JSON. */
function ownMetadata({ preparation, head }: TrainedModel): Record<string, string> {
  const { numeric, categories, window } = preparation;
  const named = (columns: readonly { name: string }[]): string[] => columns.map(({ name }) => name);
  return {
    task: { classes: 'classification', value: 'regression', anomaly: 'anomaly' }[head.kind],
    columns: JSON.stringify({ values: named(numeric), texts: named(categories) }),
    window: JSON.stringify(window),
    ...(head.kind === 'classes' ? { labels: JSON.stringify(head.labels) } : {}),
  };
}

const activations = { relu: 'Relu', sigmoid: 'Sigmoid', tanh: 'Tanh' } as const;

/** The network's outputs [n, outputs]; of classes before the softmax. */
function addNetwork(graph: GraphBuilder, { layers, activation }: Network, input: string): string {
  let value = input;
  for (const [at, layer] of layers.entries()) {
    const isLast = at === layers.length - 1;
    const name = isLast ? 'output' : `hidden_${at + 1}`;
    const weights = graph.floats(`${name}_weights`, [layer.inputs, layer.outputs], layer.weights);
    value = graph.node(name, 'Gemm', [
      value,
      weights,
      graph.floats(`${name}_bias`, [layer.outputs], layer.bias),
    ]);
    if (!isLast) value = graph.node(`${name}_${activation}`, activations[activation], [value]);
  }
  return value;
}

function addHead(graph: GraphBuilder, head: Head, output: string, prepared: PreparedGraph): GraphValue[] {
  if (head.kind === 'classes') return addClasses(graph, head.labels, output);
  if (head.kind === 'value') return addValue(graph, head, output, prepared.last);
  return addAnomaly(graph, head.threshold, output, prepared.prepared);
}

function isTexts(labels: number[] | string[]): labels is string[] {
  return typeof labels[0] === 'string';
}

function addClasses(graph: GraphBuilder, labels: number[] | string[], output: string): GraphValue[] {
  const { label, probabilities } = outputNames;
  graph.node(probabilities, 'Softmax', [output], { axis: { int: -1 } });
  const best = graph.node('best', 'ArgMax', [probabilities], { axis: { int: 1 }, keepdims: { int: 0 } });
  const known = isTexts(labels)
    ? graph.texts('labels', labels)
    : graph.integers('labels', [labels.length], labels);
  graph.node(label, 'Gather', [known, best], { axis: { int: 0 } });
  return [
    {
      name: label,
      datatype: isTexts(labels) ? 'BYTES' : 'INT64',
      shape: ['n'],
      documentation: 'The label of the highest probability',
    },
    {
      name: probabilities,
      datatype: 'FP32',
      shape: ['n', labels.length],
      documentation: `Of the labels ${labels.join(', ')}`,
    },
  ];
}

function addValue(
  graph: GraphBuilder,
  { center, scale, carries }: Extract<Head, { kind: 'value' }>,
  output: string,
  last: string | null,
): GraphValue[] {
  const { prediction } = outputNames;
  const scaled = graph.node('scale_output', 'Mul', [output, graph.floats('output_scale', [1], [scale])]);
  const offset = graph.floats('output_center', [1], [center]);
  if (carries === null || last === null) graph.node(prediction, 'Add', [scaled, offset]);
  else {
    const change = graph.node('change', 'Add', [scaled, offset]);
    const column = graph.integers('carried_column', [1], [carries]);
    const carried = graph.node('carried', 'Gather', [last, column], { axis: { int: 1 } });
    graph.node(prediction, 'Add', [change, carried]);
  }
  return [{ name: prediction, datatype: 'FP32', shape: ['n', 1] }];
}

function addAnomaly(graph: GraphBuilder, threshold: number, output: string, prepared: string): GraphValue[] {
  const { score, anomaly } = outputNames;
  const difference = graph.node('difference', 'Sub', [output, prepared]);
  const squares = graph.node('difference_squares', 'Mul', [difference, difference]);
  const error = graph.node('reconstruction_error', 'ReduceMean', [squares], {
    axes: { ints: [1] },
    keepdims: { int: 1 },
  });
  graph.node(score, 'Div', [error, graph.floats('threshold', [1], [threshold])]);
  graph.node(anomaly, 'Greater', [score, graph.floats('anomaly_score', [1], [1])]);
  return [
    { name: score, datatype: 'FP32', shape: ['n', 1], documentation: 'Above 1: an anomaly' },
    { name: anomaly, datatype: 'BOOL', shape: ['n', 1] },
  ];
}
