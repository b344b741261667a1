// Why: the numbers of what goes on between regions, in one place.
// Trusts: nothing. Must never: be changed by what another region says.

export interface RegionLimits {
  /** Pause between two looks at a region that answers. */
  roundEveryMs: number;
  /** The longest pause for one that does not. */
  roundEveryMaxMs: number;
  askTimeoutMs: number;
  /** Of a file, in one answer. */
  partBytes: number;
  metadataBytesMax: number;
  pageItems: number;
  pageBytesMax: number;
  /** Pages of one list in one look: others' turn comes as well. */
  pagesPerRound: number;
  /** Files under way at one time. */
  filesAtOnce: number;
  /** A release that was refused is judged again after this. */
  refusedRetryMs: number;
  /** Of a file that came with other bytes than were signed. */
  damagedRetryMs: number;
  /** A region that has not taken an order after this is told of as cut off: longer than its longest pauses. */
  orderTakenWithinMs: number;
}

export const regionLimits: RegionLimits = {
  roundEveryMs: 5_000,
  roundEveryMaxMs: 60_000,
  askTimeoutMs: 30_000,
  partBytes: 1024 * 1024,
  metadataBytesMax: 16 * 1024 * 1024,
  pageItems: 200,
  pageBytesMax: 16 * 1024 * 1024,
  pagesPerRound: 50,
  filesAtOnce: 4,
  refusedRetryMs: 60 * 60_000,
  damagedRetryMs: 60_000,
  orderTakenWithinMs: 180_000,
};
