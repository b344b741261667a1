// Why: boxes out of a detector's raw outputs, and how well two lists of boxes agree: what a comparison number by
// number cannot say of a detector. Trusts: the manifest for the layout. Must never: take time that grows with the
// square of the anchors; only candidates above the threshold are compared.

import type { Detections } from '../wire/manifest.ts';
import type { Tensor } from '../wire/tensors.ts';

export interface Detection {
  /** Corners in the output's own unit. */
  x0: number;
  y0: number;
  x1: number;
  y1: number;
  score: number;
  label: number;
}

/** Candidates kept before suppression, best first: real frames hold far fewer. */
const candidatesMax = 1_000;

/** Intersection over union of two boxes, 0 where either is empty. */
export function iou(a: Detection, b: Detection): number {
  const width = Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0);
  const height = Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0);
  if (!(width > 0 && height > 0)) return 0;
  const common = width * height;
  const area = (one: Detection): number => Math.max(0, one.x1 - one.x0) * Math.max(0, one.y1 - one.y0);
  const union = area(a) + area(b) - common;
  return union > 0 ? common / union : 0;
}

type Numbers = ArrayLike<number>;

function cornered(
  box: [number, number, number, number],
  format: Detections['format'],
): Omit<Detection, 'score' | 'label'> {
  const [a, b, c, d] = box;
  if (format === 'xyxy') return { x0: a, y0: b, x1: c, y1: d };
  if (format === 'xywh') return { x0: a, y0: b, x1: a + c, y1: b + d };
  return { x0: a - c / 2, y0: b - d / 2, x1: a + c / 2, y1: b + d / 2 };
}

/** Best class of a row of scores. */
function best(scores: Numbers, from: number, count: number): { label: number; score: number } {
  let label = 0;
  let score = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < count; index++) {
    const value = scores[from + index] ?? Number.NaN;
    if (value > score) {
      score = value;
      label = index;
    }
  }
  return { label, score };
}

/** Where each anchor of a grid detector stands: column, row and stride, over all strides in order. */
function gridOf(
  strides: readonly number[],
  imageSize: readonly [number, number],
): [number, number, number][] {
  const [height, width] = imageSize;
  return strides.flatMap((stride) => {
    const [rows, columns] = [Math.floor(height / stride), Math.floor(width / stride)];
    return Array.from({ length: rows * columns }, (_, index): [number, number, number] => [
      index % columns,
      Math.floor(index / columns),
      stride,
    ]);
  });
}

/** Strides of anchor-free heads, from the finest on. */
const usualStrides = [8, 16, 32, 64];
const defaults = { scoreMin: 0.3, suppressIou: 0.45 } as const;

/** [height, width] of the image among the inputs; null where there is none. */
export function imageSizeOf(inputs: readonly Tensor[]): [number, number] | null {
  const image = inputs.find(({ shape }) => shape.length === 4);
  if (image === undefined) return null;
  const [, a = 0, b = 0, c = 0] = image.shape;
  // Channels first where the second dimension is as small as channels are.
  return a <= 4 ? [b, c] : [a, b];
}

/**
 * The layout of a detector that does not say: boxes beside scores, or rows of box, objectness and classes, on a grid
 * where there are as many rows as the image has cells. Null where the outputs look like neither.
 */
export function inferDetections(
  outputs: readonly Tensor[],
  imageSize: readonly [number, number] | null,
): Detections | null {
  const boxes = outputs.find(({ shape }) => shape.length >= 2 && shape.at(-1) === 4);
  const rows = (tensor: Tensor): number => tensor.data.length / (tensor.shape.at(-1) ?? 1);
  if (boxes !== undefined) {
    const scores = outputs.find((one) => one !== boxes && one.shape.length >= 2 && rows(one) === rows(boxes));
    if (scores === undefined) return null;
    // Two columns are background and object.
    const background = scores.shape.at(-1) === 2 ? 1 : 0;
    return { boxes: boxes.name, scores: scores.name, background, format: 'xyxy', ...defaults };
  }
  const joined = outputs.find(({ shape }) => shape.length >= 2 && (shape.at(-1) ?? 0) >= 6);
  if (joined === undefined) return null;
  const plain: Detections = { boxes: joined.name, format: 'cxcywh', ...defaults };
  if (imageSize === null) return plain;
  for (let count = 1; count <= usualStrides.length; count++) {
    const strides = usualStrides.slice(0, count);
    if (gridOf(strides, imageSize).length === rows(joined))
      return { ...plain, grid: { strides, imageSize: [imageSize[0], imageSize[1]] } };
  }
  return plain;
}

/** Boxes down to this part of the threshold may be the partner of one above it. */
const partnerShare = 0.5;

/**
 * Boxes above half of the score threshold, best first, after non-maximum suppression within a class. Null where the
 * outputs do not have the layout that the manifest says.
 */
export function decodeDetections(outputs: readonly Tensor[], layout: Detections): Detection[] | null {
  const boxes = outputs.find(({ name }) => name === layout.boxes);
  const scores = layout.scores === undefined ? boxes : outputs.find(({ name }) => name === layout.scores);
  if (boxes === undefined || scores === undefined) return null;
  if (!(boxes.data instanceof Float32Array) || !(scores.data instanceof Float32Array)) return null;
  const width = boxes.shape.at(-1) ?? 0;
  const scoreWidth = scores.shape.at(-1) ?? 0;
  const joined = layout.scores === undefined;
  // Joined: box, objectness, classes in one row.
  if (joined ? width < 6 : width < 4 || scoreWidth < 1) return null;
  const rows = boxes.data.length / width;
  if (!joined && scores.data.length / scoreWidth !== rows) return null;
  const grid = layout.grid === undefined ? null : gridOf(layout.grid.strides, layout.grid.imageSize);
  if (grid !== null && rows % grid.length !== 0) return null;

  const found: Detection[] = [];
  const skip = joined ? 0 : (layout.background ?? 0);
  for (let row = 0; row < rows; row++) {
    const at = row * width;
    const chance = joined
      ? best(boxes.data, at + 5, width - 5)
      : best(scores.data, row * scoreWidth + skip, scoreWidth - skip);
    const score = joined ? chance.score * (boxes.data[at + 4] ?? 0) : chance.score;
    if (!(score >= layout.scoreMin * partnerShare)) continue;
    let box: [number, number, number, number] = [
      boxes.data[at] ?? 0,
      boxes.data[at + 1] ?? 0,
      boxes.data[at + 2] ?? 0,
      boxes.data[at + 3] ?? 0,
    ];
    const cell = grid?.[row % grid.length];
    if (cell !== undefined) {
      const [column, line, stride] = cell;
      box = [
        (box[0] + column) * stride,
        (box[1] + line) * stride,
        Math.exp(box[2]) * stride,
        Math.exp(box[3]) * stride,
      ];
    }
    found.push({ ...cornered(box, layout.format), score, label: chance.label });
  }
  found.sort((a, b) => b.score - a.score);
  const kept: Detection[] = [];
  for (const one of found.slice(0, candidatesMax)) {
    if (!kept.some((other) => other.label === one.label && iou(other, one) > layout.suppressIou))
      kept.push(one);
  }
  return kept;
}

/**
 * Share of boxes that have a partner of the same class in the other list, at an IoU of at least `iouMin`, over the
 * boxes of both lists that score at least `scoreMin`. A partner may score less: a box just above the threshold in one
 * list and just below it in the other is no disagreement. 1 where there are no such boxes. Pairs are taken greedily,
 * best score first.
 */
export function detectionAgreement(
  a: readonly Detection[],
  b: readonly Detection[],
  { iouMin, scoreMin }: { iouMin: number; scoreMin: number },
): number {
  const [left, right] = [partnered(a, b, iouMin, scoreMin), partnered(b, a, iouMin, scoreMin)];
  const boxes = left.boxes + right.boxes;
  return boxes === 0 ? 1 : (left.pairs + right.pairs) / boxes;
}

function partnered(
  boxes: readonly Detection[],
  others: readonly Detection[],
  iouMin: number,
  scoreMin: number,
): { boxes: number; pairs: number } {
  const free = new Set(others.keys());
  const sure = boxes.filter(({ score }) => score >= scoreMin);
  let pairs = 0;
  for (const one of sure) {
    let [partner, overlap] = [-1, iouMin];
    for (const index of free) {
      const other = others[index];
      if (other === undefined || other.label !== one.label) continue;
      const common = iou(one, other);
      if (common >= overlap) [partner, overlap] = [index, common];
    }
    if (partner < 0) continue;
    free.delete(partner);
    pairs += 1;
  }
  return { boxes: sure.length, pairs };
}
